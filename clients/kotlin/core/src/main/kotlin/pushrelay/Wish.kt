package pushrelay

// region devices
/** A phone as the relay reaches it. `toString` shows no token. */
sealed interface Device {
    val app: String

    /** The part that changes during the life of a registration: what `PATCH` takes. */
    fun address(): Map<String, Any?>

    /** The device as a new registration names it. */
    fun whole(): Map<String, Any?>
}

/** A phone with Google services, by the Firebase Installation ID that `onRegistered` gave. */
class Fid(override val app: String, val fid: String) : Device {
    override fun address() = mapOf("fid" to fid)
    override fun whole() = mapOf("platform" to "fcm", "app" to app) + address()
}

/** The same by registration token: an app without Firebase Installation IDs. */
class Fcm(override val app: String, val token: String) : Device {
    override fun address() = mapOf("token" to token)
    override fun whole() = mapOf("platform" to "fcm", "app" to app) + address()
}

/** A phone with a UnifiedPush distributor: the endpoint, and the keys of the connector (`pubKey` is `p256dh`). */
class WebPush(override val app: String, val endpoint: String, val p256dh: String, val auth: String) : Device {
    override fun address() = mapOf("endpoint" to endpoint, "keys" to mapOf("p256dh" to p256dh, "auth" to auth))
    override fun whole() = mapOf("platform" to "webpush", "app" to app) + address()
}
// endregion

/** A credential of the user; `toString` shows none of it. */
sealed interface Credential {
    fun fields(): Map<String, Any?>
}

class Basic(private val password: String, private val user: String? = null) : Credential {
    override fun fields() = filled("kind" to "basic", "user" to user, "password" to password)
}

class OAuth(
    private val refreshToken: String,
    private val clientId: String? = null,
    private val user: String? = null,
) : Credential {
    override fun fields() =
        filled("kind" to "oauth", "user" to user, "refresh_token" to refreshToken, "client_id" to clientId)
}

class Certificate(
    private val pkcs12: String,
    private val passphrase: String? = null,
    private val user: String? = null,
) : Credential {
    override fun fields() =
        filled("kind" to "certificate", "user" to user, "pkcs12" to pkcs12, "passphrase" to passphrase)
}

class Kerberos(private val invitation: String, private val user: String? = null) : Credential {
    override fun fields() = filled("kind" to "kerberos", "user" to user, "invitation" to invitation)
}

/** A registration as the app asks for it. What is null is left out: the relay takes its defaults. */
class Wish(
    val mailbox: String,
    val credential: Credential,
    val device: Device,
    val server: String? = null,
    val classes: List<String>? = null,
    val subfolders: List<String>? = null,
    val mode: String? = null,
    val locale: String? = null,
    val invitation: String? = null,
    /** The key that an MDM gave to the app; it travels in a header, with this request only. */
    val enrolmentKey: String? = null,
) {
    fun body() = filled(
        "mailbox" to mailbox,
        "server" to server,
        "credential" to credential.fields(),
        "device" to device.whole(),
        "classes" to classes,
        "subfolders" to subfolders,
        "mode" to mode,
        "locale" to locale,
        "invitation" to invitation,
    )
}

private fun filled(vararg fields: Pair<String, Any?>): Map<String, Any?> =
    fields.toMap().filterValues { it != null }
