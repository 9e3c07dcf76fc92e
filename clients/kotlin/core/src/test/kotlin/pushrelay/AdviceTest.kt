package pushrelay

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue

class AdviceTest {
    private fun seen(state: String, by: String = "nobody", vararg other: Pair<String, Any?>) =
        advise(Registration(mapOf("id" to "r", "state" to state, "remedy" to mapOf("by" to by), *other)))

    fun `a registration says what the app does`() {
        assertEquals(Step.NOTHING, seen("active"))
        assertEquals(Step.WAIT, seen("active", "nobody", "credential" to mapOf("pending" to true)))
        assertEquals(Step.WAIT, seen("verifying"))
        assertEquals(Step.ASK_USER, seen("verifying", "user"))
        assertEquals(Step.ASK_USER, seen("credential-refused", "user"))
        assertEquals(Step.TELL_ADMINISTRATOR, seen("active", "administrator"))
        assertEquals(Step.SEND_TOKEN, seen("token-gone", "app"))
        assertEquals(Step.WAIT, seen("proving", "app"))
        assertEquals(Step.SEND_TOKEN, seen("active", "app"))
        assertEquals(Step.SEND_TOKEN, seen("active", "nobody", "quarantine" to mapOf("reason" to "x")))
        assertEquals(Step.WIPE, seen("wiped", "user"))
        assertEquals(Step.WIPE, seen("active", "nobody", "mailbox" to mapOf("state" to "wiping")))
        assertEquals(Step.WIPE, seen("active", "nobody", "mailbox" to mapOf("state" to "wiped")))
    }

    fun `a refusal says what the app does`() {
        val steps = mapOf(
            Problem(401, "not-authorized") to Step.NOT_REGISTERED,
            Problem(410, "gone") to Step.REGISTER_AGAIN,
            Problem(410, "wiped") to Step.WIPE,
            Problem(410, "of-a-later-relay") to Step.NOT_REGISTERED,
            Problem(409, "replaced") to Step.NOT_REGISTERED,
            Problem(403, "mailbox-wiped") to Step.TELL_ADMINISTRATOR,
            Problem(403, "enrolment-refused") to Step.TELL_ADMINISTRATOR,
            Problem(403, "credential-refused") to Step.ASK_USER,
            Problem(409, "mailbox-full") to Step.TELL_ADMINISTRATOR,
            Problem(409, "not-active") to Step.WAIT,
            Problem(408, "too-slow") to Step.REPEAT,
            Problem(429, "too-many-requests") to Step.REPEAT,
            Problem(502, "http-502") to Step.REPEAT,
            Problem(400, "invalid-request") to Step.CORRECT_APP,
        )

        for ((problem, step) in steps) assertEquals(step, advise(problem), problem.code)
    }

    fun `a problem document is read`() {
        val document = Json.read(
            """{"code":"invalid-request","detail":"see","errors":[{"field":"device.token","detail":"is missing"},7]}""",
        )

        val expected = Problem(400, "invalid-request", "see", listOf("device.token" to "is missing"), 7)
        assertEquals(expected, Problem.read(400, document, " 7 "))
        assertEquals(Problem(502, "http-502"), Problem.read(502, null, "soon"))
        assertEquals(86_400L, Problem.read(503, null, "999999999").retryAfter)
    }

    fun `waits double up to an hour and spread`() {
        assertEquals(listOf(2000L, 4000L, 8000L), (1..3).map { wait(it, null, 1.0) })
        assertEquals(1000L, wait(1, null, 0.0))
        assertEquals(3_600_000L, wait(60, null, 1.0))
        assertEquals(30_000L, wait(9, 30, 0.0))
        assertEquals(33_000L, wait(9, 30, 1.0))
    }

    fun `an identity is random and long`() {
        val identity = Identity.make()

        assertTrue(Regex("[A-Za-z0-9_-]{24}").matches(identity.id))
        assertTrue(Regex("[A-Za-z0-9_-]{43}").matches(identity.secret))
        assertNotEquals(identity.secret, Identity.make().secret)
    }

    fun `another answer is no registration`() {
        assertFailsWith<Unreachable> { Registration(mapOf("id" to "r")) }
        assertFailsWith<Unreachable> { Registration(emptyMap()) }
    }

    fun `no secret shows`() {
        val wish = Wish("ann@example.com", Basic("canary"), Fcm("com.example.mail", "canary"))

        assertTrue("canary" !in "$wish ${wish.credential} ${wish.device} ${Challenge("r", "canary")} ${Identity("r", "canary")}")
    }
}
