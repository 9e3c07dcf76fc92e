package pushrelay.jvm

import java.io.File
import pushrelay.App
import pushrelay.Basic
import pushrelay.Challenge
import pushrelay.Device
import pushrelay.Fcm
import pushrelay.Fid
import pushrelay.Json
import pushrelay.MemoryStore
import pushrelay.RelayApi
import pushrelay.Told
import pushrelay.UrlConnectionTransport
import pushrelay.WebPush
import pushrelay.Wish
import pushrelay.readPush
import pushrelay.trusting

/**
 * A phone that a test moves: each line of the input is an order in JSON, each line of the output its result.
 *
 * Arguments: the URL of the relay, and the file of its CA.
 */
fun main(arguments: Array<String>) {
    val tls = File(arguments[1]).inputStream().use(::trusting)
    val phone = Phone(
        App(RelayApi(HttpClientTransport(arguments[0], tls)), MemoryStore()),
        RelayApi(UrlConnectionTransport(arguments[0], tls)),
    )
    for (line in generateSequence(::readlnOrNull)) println(Json.write(phone.obey(Json.read(line) as Map<*, *>)))
}

class Phone(private val app: App, private val asAndroid: RelayApi) {
    fun obey(order: Map<*, *>): Map<String, Any?> = when (order["do"]) {
        "key" -> mapOf("key" to asAndroid.vapidPublicKey())
        "register" -> {
            val wish = Wish(order["mailbox"] as String, password(order), device(order), locale = "de-AT")
            result(app.register(wish))
        }
        "open" -> result(app.opened(device(order)))
        "password" -> result(app.credentialChanged(password(order)))
        "test" -> result(app.testPush())
        "logout" -> result(app.logout())
        "push" -> {
            val push = app.received(readPush((order["data"] as String).encodeToByteArray()))
            if (push is Challenge) result(app.prove(push.nonce)) else mapOf("push" to push?.toString())
        }
        else -> throw IllegalArgumentException("no such order")
    }

    private fun password(order: Map<*, *>) = Basic(order["password"] as String)

    private fun device(order: Map<*, *>): Device {
        val device = order["device"] as Map<*, *>
        device["fid"]?.let { return Fid(APP, it as String) }
        device["token"]?.let { return Fcm(APP, it as String) }
        val keys = device["keys"] as Map<*, *>
        return WebPush(APP, device["endpoint"] as String, keys["p256dh"] as String, keys["auth"] as String)
    }

    private fun result(told: Told) =
        mapOf("step" to told.step.name, "state" to told.registration?.state, "id" to app.identity?.id, "detail" to told.detail)

    private companion object {
        const val APP = "com.example.mail"
    }
}
