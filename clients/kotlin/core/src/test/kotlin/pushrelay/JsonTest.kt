package pushrelay

import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class JsonTest {
    fun `what is written is read again`() {
        val value = mapOf(
            "text" to "a \"quote\", a \\, \n, \u0001, ä, 🚀",
            "numbers" to listOf(0L, -17L, 9007199254740993L),
            "empty" to mapOf<String, Any?>(),
            "none" to listOf<Any?>(),
            "words" to listOf(true, false, null),
        )

        assertEquals<Any?>(value, Json.read(Json.write(value)))
    }

    fun `the forms of other writers are read`() {
        val read = Json.read(" { \"a\" : [ 1.5e2 , \"\\u00e4\\/\\b\\f\\r\\t\" ] , \"b\" : { } } ")

        assertEquals<Any?>(mapOf("a" to listOf(150.0, "ä/\b\u000C\r\t"), "b" to mapOf<String, Any?>()), read)
    }

    fun `what is no JSON is refused`() {
        val broken = listOf(
            "", "{", "[1", "[1,]", "{\"a\"}", "{\"a\" 1}", "{1:2}", "tru", "01", "1 2", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\n\"",
            "<html>", "[".repeat(33) + "]".repeat(33), "NaN", "[1 2]",
        )

        for (text in broken) assertFailsWith<Json.NotJson>(text) { Json.read(text) }
    }

    fun `only what JSON knows is written`() {
        assertFailsWith<IllegalArgumentException> { Json.write(Any()) }
    }
}
