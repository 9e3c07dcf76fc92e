package pushrelay

/** What an app does next. */
enum class Step {
    NOTHING,

    /** Look again later; the relay goes on by itself. */
    WAIT,

    /** The same request again, after `Retry-After` or a growing wait. */
    REPEAT,

    /** Never repeat a refused password by yourself: the account could be locked. */
    ASK_USER,
    SEND_TOKEN,
    TELL_ADMINISTRATOR,

    /** The registration ended for a reason that is nobody's fault: register, if the user is still logged in. */
    REGISTER_AGAIN,

    /** There is no registration, or none any more: register when the user asks for it. */
    NOT_REGISTERED,

    /** An administrator wiped this phone: remove the company's data, and do not register again by yourself. */
    WIPE,
    CORRECT_APP,
}

// region advise
/** What to do about a registration that the relay shows. */
fun advise(registration: Registration): Step = with(registration) {
    when {
        state == "wiped" || mailboxState == "wiped" || mailboxState == "wiping" -> Step.WIPE
        state == "token-gone" || quarantined -> Step.SEND_TOKEN
        state == "proving" -> Step.WAIT // for the challenge push
        remedyBy == "user" -> Step.ASK_USER
        remedyBy == "administrator" -> Step.TELL_ADMINISTRATOR
        remedyBy == "app" -> Step.SEND_TOKEN
        state == "active" && !credentialPending -> Step.NOTHING
        else -> Step.WAIT
    }
}

/** What to do about a refusal. Codes that are not named go by their status: the relay may learn new ones. */
fun advise(problem: Problem): Step = when (problem.code) {
    "not-authorized", "replaced" -> Step.NOT_REGISTERED
    "wiped" -> Step.WIPE
    "gone" -> Step.REGISTER_AGAIN
    "credential-refused", "unsupported-credential" -> Step.ASK_USER
    "mailbox-full", "mailbox-wiped", "enrolment-refused", "unknown-server", "unknown-app" -> Step.TELL_ADMINISTRATOR
    "not-active", "wrong-proof" -> Step.WAIT
    "broken-body", "too-slow" -> Step.REPEAT
    else -> when (problem.status) {
        410 -> Step.NOT_REGISTERED
        408, 425, 429, 500, 502, 503, 504 -> Step.REPEAT
        else -> Step.CORRECT_APP
    }
}
// endregion

/** What to do about a test push. */
fun advise(test: TestResult): Step = when {
    test.state == "queued" -> Step.WAIT
    test.state != "refused" -> Step.NOTHING
    test.remedyBy == "app" -> Step.SEND_TOKEN
    else -> Step.TELL_ADMINISTRATOR
}

/**
 * Milliseconds before repetition [attempt] (from 1): doubled each time up to an hour, spread by [chance] (0 to 1), so
 * that the phones of a company do not come back in the same second. A time that the relay named is never shortened.
 */
fun wait(attempt: Int, retryAfter: Long?, chance: Double): Long {
    if (retryAfter != null) return (retryAfter * 1000 * (1 + 0.1 * chance)).toLong()
    val doubled = minOf(2000.0 * Math.pow(2.0, attempt - 1.0), 3_600_000.0)
    return (doubled * (0.5 + 0.5 * chance)).toLong()
}
