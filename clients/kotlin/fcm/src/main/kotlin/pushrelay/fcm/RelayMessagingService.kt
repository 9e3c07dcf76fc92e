package pushrelay.fcm

import com.google.firebase.messaging.FirebaseMessagingService
import com.google.firebase.messaging.RemoteMessage
import pushrelay.Fcm
import pushrelay.Fid
import pushrelay.android.Relay
import pushrelay.readPush

// region service
class RelayMessagingService : FirebaseMessagingService() {
    /** The Firebase Installation ID, with the switch in the manifest; also when FCM made its registration again. */
    override fun onRegistered(installationId: String) = Relay.deviceChanged(this, Fid(packageName, installationId))

    /** The registration token of an app without that switch. */
    override fun onNewToken(token: String) = Relay.deviceChanged(this, Fcm(packageName, token))

    override fun onMessageReceived(message: RemoteMessage) = Relay.received(this, readPush(message.data))

    /** FCM dropped messages, because the phone was away too long or too many waited: so sync everything. */
    override fun onDeletedMessages() {
        Relay.sync(this)
        Relay.look(this)
    }
}
// endregion
