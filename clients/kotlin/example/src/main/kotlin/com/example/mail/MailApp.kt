package com.example.mail

import android.app.Activity
import android.app.Application
import pushrelay.App
import pushrelay.Basic
import pushrelay.Push
import pushrelay.RelayApi
import pushrelay.Step
import pushrelay.Told
import pushrelay.UrlConnectionTransport
import pushrelay.Wish
import pushrelay.android.KeystoreStore
import pushrelay.android.Relay
import pushrelay.android.RelayHost

// region application
class MailApp : Application(), RelayHost {
    override val relay by lazy {
        val url = Relay.managed(this, "relay_url") ?: "https://relay.example.com:8443"
        App(RelayApi(UrlConnectionTransport(url)), KeystoreStore(this))
    }

    override fun onCreate() {
        super.onCreate()
        Relay.createChannels(this, mail = "New mail", attention = "Problems with notifications")
        Relay.look(this) // at each start
        Relay.lookDaily(this) // however seldom the user opens the app
    }

    override fun sync(): Boolean = Mail.syncAll()

    override fun show(push: Push) = Mail.notify(push)

    override fun act(told: Told) {
        when (told.step) {
            Step.ASK_USER -> Mail.showLogin()
            Step.WIPE -> Mail.removeEverything() // and do not register again until the user asks for it
            Step.REGISTER_AGAIN -> Mail.registerWithStoredPassword()
            Step.SEND_TOKEN -> Mail.subscribeAgain()
            Step.TELL_ADMINISTRATOR -> Mail.show(told.registration?.remedy ?: told.detail)
            Step.NOTHING, Step.WAIT, Step.REPEAT, Step.NOT_REGISTERED, Step.CORRECT_APP -> Unit
        }
    }
}
// endregion

// region register
/** After the user gave the password, on a background thread. What a wish leaves out takes the default of the relay. */
fun logIn(app: MailApp, password: String): Told {
    val device = Relay.device(app) ?: return Told(Step.WAIT) // no token yet: `onRegistered` or `onNewEndpoint` comes
    val wish = Wish(
        mailbox = "ann@example.com",
        credential = Basic(password),
        device = device,
        classes = listOf("email", "calendar"),
        locale = java.util.Locale.getDefault().toLanguageTag(),
        invitation = Relay.managed(app, "invitation"),
        enrolmentKey = Relay.managed(app, "enrolment_key"),
    )
    return app.relay.register(wish)
}
// endregion

// region permission
/** Android 13 and newer show no notification without it. Ask when the user switches notifications on. */
fun askToNotify(activity: Activity) {
    activity.requestPermissions(arrayOf("android.permission.POST_NOTIFICATIONS"), 1)
}
// endregion

/** Yours: the app itself. */
object Mail {
    fun syncAll() = true
    fun notify(push: Push) = println(push)
    fun showLogin() = Unit
    fun removeEverything() = Unit
    fun registerWithStoredPassword() = Unit
    fun subscribeAgain() = Unit
    fun show(words: String) = println(words)
}
