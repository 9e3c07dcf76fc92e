package pushrelay

import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertNull

class PushTest {
    fun `the strings of FCM and the values of WebPush are read alike`() {
        val fcm = mapOf(
            "v" to "1", "registration" to "r", "kind" to "new-items", "class" to "calendar", "count" to "3", "certain" to "false",
        )
        val webpush = """{"v":1,"registration":"r","kind":"new-items","class":"calendar","count":3,"certain":false}"""

        val expected = NewItems("r", "calendar", 3, certain = false)
        assertEquals<Push?>(expected, readPush(fcm))
        assertEquals<Push?>(expected, readPush(webpush.encodeToByteArray()))
    }

    fun `every kind is read`() {
        fun read(vararg fields: Pair<String, String>) = readPush(mapOf("registration" to "r", *fields))

        assertEquals<Push?>(Attention("r", certain = true, reason = "wiped"), read("kind" to "attention", "reason" to "wiped"))
        assertEquals<Push?>(Attention("r", certain = false, reason = null), read("kind" to "attention", "certain" to "false"))
        assertEquals<Push?>(TestPush("r"), read("kind" to "test"))
        assertEquals("n", assertIs<Challenge>(read("kind" to "challenge", "nonce" to "n")).nonce)
        assertEquals<Push?>(UnknownPush("r", "challenge"), read("kind" to "challenge"))
        assertEquals<Push?>(UnknownPush("r", "later"), read("kind" to "later"))
    }

    fun `what is not from the relay is null`() {
        assertNull(readPush(mapOf("from" to "elsewhere")))
        assertNull(readPush(mapOf("registration" to "r")))
        assertNull(readPush(mapOf("registration" to 7L, "kind" to "test")))
        assertNull(readPush("<html>".encodeToByteArray()))
        assertNull(readPush("[]".encodeToByteArray()))
    }

    fun `a count is a number that a badge may show`() {
        val counts = mapOf("17" to 17, 2L to 2, "many" to 1, null to 1, "-3" to 1, "9".repeat(40) to 1, "٣" to 1, 0L to 1)

        for ((sent, count) in counts) {
            val push = readPush(mapOf("registration" to "r", "kind" to "new-items", "count" to sent))
            assertEquals<Push?>(NewItems("r", "email", count, certain = true), push)
        }
    }
}
