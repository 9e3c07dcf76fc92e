package pushrelay

import java.io.ByteArrayOutputStream
import java.io.IOException
import java.io.InputStream
import java.net.HttpURLConnection
import java.net.URL
import java.net.URLEncoder
import java.security.KeyStore
import java.security.cert.CertificateFactory
import javax.net.ssl.HttpsURLConnection
import javax.net.ssl.SSLContext
import javax.net.ssl.TrustManagerFactory

/** What came back: status, headers in lower case that the client reads, and the body. */
class Answer(val status: Int, val retryAfter: String?, val body: ByteArray)

/** One HTTP exchange, without repetition and without redirects; throws [IOException]. Give your own for OkHttp. */
fun interface Transport {
    fun exchange(method: String, path: String, headers: Map<String, String>, body: ByteArray?): Answer
}

/**
 * The transport that every Android has. [tls] is for a company's own CA: see [trusting].
 *
 * On Android it sends PATCH; `HttpURLConnection` of a plain JVM does not: take `HttpClientTransport` there.
 */
class UrlConnectionTransport(private val base: String, private val tls: SSLContext? = null) : Transport {
    override fun exchange(method: String, path: String, headers: Map<String, String>, body: ByteArray?): Answer {
        val connection = URL(base + path).openConnection() as HttpURLConnection
        try {
            if (tls != null) (connection as HttpsURLConnection).sslSocketFactory = tls.socketFactory
            connection.requestMethod = method
            connection.connectTimeout = CONNECT
            connection.readTimeout = READ
            connection.instanceFollowRedirects = false
            connection.useCaches = false
            for ((name, value) in headers) connection.setRequestProperty(name, value)
            if (body != null) {
                connection.doOutput = true
                connection.setFixedLengthStreamingMode(body.size)
                connection.outputStream.use { it.write(body) }
            }
            val status = connection.responseCode
            val stream = if (status >= 400) connection.errorStream else connection.inputStream
            return Answer(status, connection.getHeaderField("Retry-After"), stream?.use(::readBounded) ?: ByteArray(0))
        } finally {
            connection.disconnect()
        }
    }

    private companion object {
        const val CONNECT = 15_000 // milliseconds
        const val READ = 30_000 // milliseconds; the relay itself asks the mail server for about six seconds
    }
}

private const val LARGEST = 1 shl 20 // bytes of an answer; the relay's have a few kilobytes

/** The bytes of an answer; throws [IOException] if they are too many to be the relay's. */
fun readBounded(stream: InputStream): ByteArray {
    val found = ByteArrayOutputStream()
    val piece = ByteArray(8192)
    while (true) {
        val count = stream.read(piece)
        if (count < 0) return found.toByteArray()
        found.write(piece, 0, count)
        if (found.size() > LARGEST) throw IOException("the answer is too long to be the relay's")
    }
}

// region own-ca
/** TLS that trusts exactly the CAs of a PEM or DER file, e.g. the company's own from `res/raw`, and no others. */
fun trusting(ca: InputStream): SSLContext {
    val store = KeyStore.getInstance(KeyStore.getDefaultType()).apply { load(null, null) }
    CertificateFactory.getInstance("X.509").generateCertificates(ca).forEachIndexed { index, certificate ->
        store.setCertificateEntry("ca-$index", certificate)
    }
    val managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm()).apply { init(store) }
    return SSLContext.getInstance("TLS").apply { init(null, managers.trustManagers, null) }
}
// endregion

/** The requests of the API, one method each; nothing is repeated here. Throws [Refused] or [Unreachable]. */
class RelayApi(private val transport: Transport) {
    /**
     * What a registration may be: platforms, kinds of credentials, what enrolment needs; ask before a log-in. The
     * answer is the same whether the mailbox exists or not.
     */
    fun capabilities(mailbox: String? = null): Map<String, Any?> =
        ask("GET", "/v1/capabilities" + mailbox?.let { "?mailbox=" + URLEncoder.encode(it, "UTF-8") }.orEmpty())

    /**
     * Register under an id and a secret that the app made, or make the registration what the wish says. The same again
     * makes no second registration and tries no accepted credential again: so repeat it until an answer comes.
     */
    fun put(identity: Identity, wish: Wish) =
        Registration(ask("PUT", path(identity), identity, wish.body(), wish.enrolmentKey))

    fun get(identity: Identity) = Registration(ask("GET", path(identity), identity))

    /** Change the address of the device, the credential, or of the [wishes] classes, subfolders, mode, locale. */
    fun patch(
        identity: Identity,
        device: Device? = null,
        credential: Credential? = null,
        wishes: Map<String, Any?> = emptyMap(),
    ): Registration {
        val body = wishes.toMutableMap()
        if (device != null) body["device"] = device.address()
        if (credential != null) body["credential"] = credential.fields()
        return Registration(ask("PATCH", path(identity), identity, body))
    }

    fun delete(identity: Identity) {
        ask("DELETE", path(identity), identity)
    }

    /** Ask for a test push; returns it as it is queued. */
    fun testPush(identity: Identity) = TestResult(ask("POST", "${path(identity)}/test-push", identity)["test"].members())

    /** What became of a test push. */
    fun testResult(identity: Identity, test: TestResult) =
        TestResult(ask("GET", "${path(identity)}/test-pushes/${test.id}", identity))

    /** Give back the nonce of a challenge push: this phone holds the device token. */
    fun prove(identity: Identity, nonce: String) =
        Registration(ask("POST", "${path(identity)}/proof", identity, mapOf("nonce" to nonce)))

    /** Ask for another challenge push. */
    fun challenge(identity: Identity) {
        ask("POST", "${path(identity)}/challenge", identity)
    }

    /** The key with which an app subscribes at its push service; 404 where the relay has no WebPush. */
    fun vapidPublicKey(): String =
        ask("GET", "/v1/webpush").text("vapid_public_key") ?: throw Unreachable("the answer has no key")

    private fun ask(
        method: String,
        path: String,
        identity: Identity? = null,
        body: Map<String, Any?>? = null,
        enrolmentKey: String? = null,
    ): Map<String, Any?> {
        val headers = buildMap {
            identity?.let { put("Authorization", "Bearer ${it.secret}") }
            body?.let { put("Content-Type", "application/json") }
            enrolmentKey?.let { put("Enrolment-Key", it) }
        }
        val answer = try {
            transport.exchange(method, path, headers, body?.let { Json.write(it).encodeToByteArray() })
        } catch (error: IOException) {
            throw Unreachable("$method: ${error.javaClass.simpleName}", error)
        }
        val document = try {
            if (answer.body.isEmpty()) null else Json.read(answer.body.decodeToString())
        } catch (_: Json.NotJson) {
            null
        }
        if (answer.status !in 200..299) throw Refused(Problem.read(answer.status, document, answer.retryAfter))
        if (answer.status != 204 && document !is Map<*, *>) throw Unreachable("$method: the answer is not a relay's")
        return document.members()
    }

    private fun path(identity: Identity) = "$COLLECTION/${identity.id}"

    private companion object {
        const val COLLECTION = "/v1/registrations"
    }
}
