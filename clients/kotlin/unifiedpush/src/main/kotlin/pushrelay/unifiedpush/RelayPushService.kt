package pushrelay.unifiedpush

import android.content.Context
import org.unifiedpush.android.connector.FailedReason
import org.unifiedpush.android.connector.PushService
import org.unifiedpush.android.connector.UnifiedPush
import org.unifiedpush.android.connector.data.PushEndpoint
import org.unifiedpush.android.connector.data.PushMessage
import pushrelay.Step
import pushrelay.Told
import pushrelay.WebPush
import pushrelay.android.Relay
import pushrelay.android.RelayHost
import pushrelay.readPush

// region subscribe
/** Subscribe with the key of the relay (`RelayApi.vapidPublicKey`), from an activity, at each start of the app. */
fun subscribe(activity: Context, vapidPublicKey: String, noDistributor: () -> Unit) {
    UnifiedPush.tryUseCurrentOrDefaultDistributor(activity) { found ->
        if (found) UnifiedPush.register(activity, vapid = vapidPublicKey) else noDistributor()
    }
}
// endregion

// region service
class RelayPushService : PushService() {
    override fun onNewEndpoint(endpoint: PushEndpoint, instance: String) {
        val keys = endpoint.pubKeySet ?: return // a distributor that does not encrypt: the relay sends nothing to it
        Relay.deviceChanged(this, WebPush(packageName, endpoint.url, keys.pubKey, keys.auth))
    }

    override fun onMessage(message: PushMessage, instance: String) {
        if (message.decrypted) Relay.received(this, readPush(message.content))
    }

    override fun onRegistrationFailed(reason: FailedReason, instance: String) =
        (applicationContext as RelayHost).act(Told(Step.SEND_TOKEN, detail = "UnifiedPush: $reason"))

    /** The distributor ended the subscription, e.g. it was removed: the next start of the app subscribes again. */
    override fun onUnregistered(instance: String) =
        (applicationContext as RelayHost).act(Told(Step.SEND_TOKEN, detail = "UnifiedPush: unregistered"))
}
// endregion
