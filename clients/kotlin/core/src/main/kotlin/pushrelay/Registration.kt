package pushrelay

import java.security.SecureRandom
import java.util.Base64

// region identity
/**
 * Id and secret of a registration, made by the app **before** its first request and kept from then on: since the app
 * knows both whatever becomes of the answer, a request that is repeated makes no second registration.
 */
class Identity(val id: String, val secret: String) {
    companion object {
        /** A new identity: 144 random bits name the registration, 256 are the secret, both in base64url. */
        fun make(random: SecureRandom = SecureRandom()) = Identity(word(random, 18), word(random, 32))

        private fun word(random: SecureRandom, bytes: Int): String =
            Base64.getUrlEncoder().withoutPadding().encodeToString(ByteArray(bytes).also(random::nextBytes))
    }
}
// endregion

/** The parts of an answer by which an app decides; [answer] has all of it, later fields too. */
class Registration(val answer: Map<String, Any?>) {
    private val mailbox = answer["mailbox"].members()
    private val remedyPart = answer["remedy"].members()

    val id: String = answer.text("id") ?: throw Unreachable("an answer without an id is no registration")
    val state: String = answer.text("state") ?: throw Unreachable("an answer without a state is no registration")

    /** Who must act: `nobody`, `app`, `user`, `administrator`. */
    val remedyBy: String = remedyPart.text("by") ?: "nobody"
    val remedy: String = remedyPart.text("text").orEmpty()

    /** Null: the relay tells nothing about the mailbox until it accepted the credential. */
    val mailboxState: String? = mailbox.text("state")
    val reason: String? = mailbox.text("reason")
    val credentialPending: Boolean = answer["credential"].members()["pending"] == true

    /** The provider refuses the device token: most often the app is built for another Firebase project. */
    val quarantined: Boolean = answer["quarantine"] != null
}

/** A test push, and what became of it. */
class TestResult(answer: Map<String, Any?>) {
    val id: String = answer.text("id").orEmpty()

    /** `queued`, `delivered`, `refused`, `superseded` or `expired`. */
    val state: String = answer.text("state") ?: "queued"

    /** The provider's code, if it refused the push or has not taken it yet. */
    val reason: String? = answer.text("reason")
    val remedyBy: String = answer["remedy"].members().text("by") ?: "nobody"
    val remedy: String = answer["remedy"].members().text("text").orEmpty()
}
