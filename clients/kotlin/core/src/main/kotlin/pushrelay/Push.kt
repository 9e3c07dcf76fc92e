package pushrelay

/** What a push says. A push is a hint to sync, never a count to add up. */
sealed interface Push {
    val registration: String
}

/** Something new may be in the folders of a class: sync it with the company's own server. */
data class NewItems(
    override val registration: String,
    val cls: String,
    val count: Int,
    val certain: Boolean,
) : Push

/**
 * The relay had to stop: ask it what to do ([App.opened]); [reason] only chooses the words of a notification.
 *
 * Not [certain]: the mail server may be at fault; offer the login only to a user who changed the password.
 */
data class Attention(override val registration: String, val certain: Boolean, val reason: String?) : Push

data class TestPush(override val registration: String) : Push

/** The relay asks whether this phone holds the device token: give the nonce back ([App.received] does). */
class Challenge(override val registration: String, val nonce: String) : Push

/** A kind of a later relay: show nothing; sync, since something may be new. */
data class UnknownPush(override val registration: String, val kind: String) : Push

// region read-push
/**
 * What the data of a push says; null: it is not from the relay, or was damaged.
 *
 * [data] is that of an FCM message (all values are strings) or the decrypted JSON of a WebPush message.
 */
fun readPush(data: Map<String, Any?>): Push? {
    val registration = data.text("registration") ?: return null
    val kind = data.text("kind") ?: return null
    val certain = data["certain"].toString() != "false"
    val nonce = data.text("nonce")
    return when {
        kind == "new-items" -> NewItems(registration, data.text("class") ?: "email", count(data["count"]), certain)
        kind == "attention" -> Attention(registration, certain, data.text("reason"))
        kind == "test" -> TestPush(registration)
        kind == "challenge" && nonce != null -> Challenge(registration, nonce)
        else -> UnknownPush(registration, kind)
    }
}

/** The same of the bytes of a decrypted WebPush message. */
fun readPush(content: ByteArray): Push? = try {
    readPush(Json.read(content.decodeToString()).members())
} catch (_: Json.NotJson) {
    null
}
// endregion

private fun count(sent: Any?): Int {
    val digits = sent.toString()
    val plain = digits.length in 1..9 && digits.all { it in '0'..'9' }
    return if (plain) maxOf(1, digits.toInt()) else 1
}

internal fun Map<String, Any?>.text(name: String): String? = (this[name] as? String)?.takeIf { it.isNotEmpty() }

/** The members of an object, or none if the value is something else. */
@Suppress("UNCHECKED_CAST") // Json makes maps with strings as names only
internal fun Any?.members(): Map<String, Any?> = this as? Map<String, Any?> ?: emptyMap()
