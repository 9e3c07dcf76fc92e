package pushrelay

/**
 * JSON without a library, so that the core has no dependency: Map, List, String, Boolean, Long, Double and null.
 *
 * Answers of the relay are small and shallow; what is deeper than [DEEPEST] or is no JSON throws [NotJson].
 */
object Json {
    class NotJson(what: String) : Exception(what)

    private const val DEEPEST = 32

    fun read(text: String): Any? = Reader(text).whole()

    fun write(value: Any?): String = buildString { put(value) }

    private fun StringBuilder.put(value: Any?) {
        when (value) {
            null -> append("null")
            is Boolean, is Int, is Long -> append(value)
            is String -> putText(value)
            is Map<*, *> -> {
                append('{')
                value.entries.forEachIndexed { index, (name, part) ->
                    if (index > 0) append(',')
                    putText(name as String)
                    append(':')
                    put(part)
                }
                append('}')
            }
            is Iterable<*> -> {
                append('[')
                value.forEachIndexed { index, part ->
                    if (index > 0) append(',')
                    put(part)
                }
                append(']')
            }
            else -> throw IllegalArgumentException("no JSON for ${value::class.simpleName}")
        }
    }

    private fun StringBuilder.putText(text: String) {
        append('"')
        for (sign in text) {
            when {
                sign == '"' || sign == '\\' -> append('\\').append(sign)
                sign < ' ' || sign.isSurrogate() -> append("\\u").append(sign.code.toString(16).padStart(4, '0'))
                else -> append(sign)
            }
        }
        append('"')
    }

    private class Reader(private val text: String) {
        private var at = 0
        private var depth = 0

        fun whole(): Any? {
            val value = value()
            space()
            if (at != text.length) fail()
            return value
        }

        private fun fail(): Nothing = throw NotJson("no JSON from character $at on")

        private fun space() {
            while (at < text.length && text[at] in " \t\r\n") at++
        }

        private fun next(): Char = if (at < text.length) text[at++] else fail()

        private fun value(): Any? {
            space()
            return when (if (at < text.length) text[at] else fail()) {
                '{' -> nested { members() }
                '[' -> nested { elements() }
                '"' -> string()
                't' -> word("true", true)
                'f' -> word("false", false)
                'n' -> word("null", null)
                else -> number()
            }
        }

        private fun <T> nested(read: () -> T): T {
            if (++depth > DEEPEST) fail()
            at++
            return read().also { depth-- }
        }

        private fun <T> word(word: String, value: T): T {
            if (!text.startsWith(word, at)) fail()
            at += word.length
            return value
        }

        private fun members(): Map<String, Any?> {
            val found = LinkedHashMap<String, Any?>()
            space()
            if (text.startsWith("}", at)) return found.also { at++ }
            while (true) {
                space()
                val name = string()
                space()
                if (next() != ':') fail()
                found[name] = value()
                space()
                when (next()) {
                    ',' -> continue
                    '}' -> return found
                    else -> fail()
                }
            }
        }

        private fun elements(): List<Any?> {
            val found = ArrayList<Any?>()
            space()
            if (text.startsWith("]", at)) return found.also { at++ }
            while (true) {
                found += value()
                space()
                when (next()) {
                    ',' -> continue
                    ']' -> return found
                    else -> fail()
                }
            }
        }

        private fun string(): String {
            if (next() != '"') fail()
            return buildString {
                while (true) {
                    when (val sign = next()) {
                        '"' -> break
                        '\\' -> append(escaped())
                        else -> if (sign < ' ') fail() else append(sign)
                    }
                }
            }
        }

        private fun escaped(): Char = when (val sign = next()) {
            '"', '\\', '/' -> sign
            'b' -> '\b'
            'f' -> '\u000C'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = (1..4).map { next() }.joinToString("")
                if (!digits.all { it in "0123456789abcdefABCDEF" }) fail()
                digits.toInt(16).toChar()
            }
            else -> fail()
        }

        private fun number(): Number {
            val found = NUMBER.matchAt(text, at) ?: fail()
            at = found.range.last + 1
            return found.value.toLongOrNull() ?: found.value.toDouble()
        }
    }

    private val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
}
