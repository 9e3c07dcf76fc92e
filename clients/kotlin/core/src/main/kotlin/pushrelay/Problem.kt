package pushrelay

/** A refusal of the API [RFC 9457]. Decide by [code]; [detail] is for people and logs. */
data class Problem(
    val status: Int,
    val code: String,
    val detail: String = "",
    /** Field and fault, as `errors` has them. */
    val fields: List<Pair<String, String>> = emptyList(),
    /** Seconds that the relay asks to wait. */
    val retryAfter: Long? = null,
) {
    companion object {
        private const val LONGEST = 86_400L // seconds: no app waits longer than a day on the word of one answer

        /** The problem of an answer. The page of a proxy has no code: `http-502` and the like stand for it. */
        fun read(status: Int, document: Any?, retryAfter: String?): Problem {
            val told = document.members()
            val code = told["code"] as? String ?: return Problem(status, "http-$status", retryAfter = seconds(retryAfter))
            val fields = (told["errors"] as? List<*>).orEmpty().filterIsInstance<Map<*, *>>()
                .map { (it["field"] ?: "").toString() to (it["detail"] ?: "").toString() }
            return Problem(status, code, (told["detail"] ?: "").toString(), fields, seconds(retryAfter))
        }

        private fun seconds(header: String?): Long? {
            val text = header.orEmpty().trim()
            val plain = text.length in 1..9 && text.all { it in '0'..'9' }
            return if (plain) minOf(text.toLong(), LONGEST) else null
        }
    }
}

/** The relay answered, and said no. */
class Refused(val problem: Problem) : Exception("${problem.status} ${problem.code}: ${problem.detail}")

/** No answer, or none that can be read: whether the relay did what was asked is unknown. */
class Unreachable(what: String, cause: Throwable? = null) : Exception(what, cause)
