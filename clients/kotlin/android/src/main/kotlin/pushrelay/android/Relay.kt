package pushrelay.android

import android.app.NotificationChannel
import android.app.NotificationManager
import android.content.Context
import android.content.RestrictionsManager
import android.os.Build
import androidx.work.BackoffPolicy
import androidx.work.Constraints
import androidx.work.ExistingPeriodicWorkPolicy
import androidx.work.ExistingWorkPolicy
import androidx.work.NetworkType
import androidx.work.OneTimeWorkRequest
import androidx.work.OutOfQuotaPolicy
import androidx.work.PeriodicWorkRequest
import androidx.work.WorkManager
import androidx.work.Worker
import androidx.work.WorkerParameters
import java.util.concurrent.TimeUnit
import pushrelay.App
import pushrelay.Attention
import pushrelay.Challenge
import pushrelay.Device
import pushrelay.Fcm
import pushrelay.Fid
import pushrelay.Json
import pushrelay.NewItems
import pushrelay.Push
import pushrelay.Step
import pushrelay.TestPush
import pushrelay.Told
import pushrelay.UnknownPush
import pushrelay.WebPush

// region host
/** What your `Application` implements, so that services and workers find the client in a process that a push began. */
interface RelayHost {
    val relay: App

    /**
     * Sync **all** classes with the company's server, then post notifications on [Relay.MAIL]; false: try again later.
     *
     * A push stands for earlier ones of other classes that it replaced while the phone was off.
     */
    fun sync(): Boolean

    /** Post a notification on the channel [Relay.ATTENTION] that opens the app, or one for a test push. */
    fun show(push: Push)

    /** Do what the relay asks for: open the login, remove the company's data, tell the administrator. */
    fun act(told: Told)
}
// endregion

object Relay {
    const val MAIL = "push-relay-mail"
    const val ATTENTION = "push-relay-attention"

    // region channels
    /** Call it in `Application.onCreate`; the user finds the channels in the settings of the system. */
    fun createChannels(context: Context, mail: String, attention: String) {
        val manager = context.getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager
        manager.createNotificationChannel(NotificationChannel(MAIL, mail, NotificationManager.IMPORTANCE_DEFAULT))
        manager.createNotificationChannel(NotificationChannel(ATTENTION, attention, NotificationManager.IMPORTANCE_HIGH))
    }
    // endregion

    // region received
    /** What every push does, from whichever service it came. It returns at once: a push service has 10 seconds. */
    fun received(context: Context, push: Push?) {
        val host = context.applicationContext as RelayHost
        when (val own = host.relay.received(push)) {
            null -> return
            is NewItems, is UnknownPush -> sync(context)
            is Attention -> {
                host.show(own)
                look(context)
            }
            is TestPush -> host.show(own)
            is Challenge -> {
                SealedFile(context, NONCE).write(own.nonce)
                look(context)
            }
        }
    }
    // endregion

    // region device
    /** The system gave the app another token or endpoint: keep it, and let a job send it when there is a network. */
    fun deviceChanged(context: Context, device: Device) {
        SealedFile(context, DEVICE).write(Json.write(device.whole()))
        (context.applicationContext as RelayHost).relay.deviceAnnounced()
        look(context)
    }
    // endregion

    /** The device as the system gave it last; null: it gave none yet. */
    fun device(context: Context): Device? {
        val whole = (SealedFile(context, DEVICE).read() ?: return null).let(Json::read) as Map<*, *>
        val app = whole["app"] as String
        whole["fid"]?.let { return Fid(app, it as String) }
        whole["token"]?.let { return Fcm(app, it as String) }
        val keys = whole["keys"] as Map<*, *>
        return WebPush(app, whole["endpoint"] as String, keys["p256dh"] as String, keys["auth"] as String)
    }

    // region work
    /** Look at the registration in a job: at each start of the app, and after a push of the kind `attention`. */
    fun look(context: Context) = enqueue(context, "look", LookWorker::class.java)

    /**
     * Sync in a job. It gets the network of the app, its VPN too, and from Android 12 on it is expedited: it may start
     * while the phone dozes.
     */
    fun sync(context: Context) = enqueue(context, "sync", SyncWorker::class.java)

    /** Look once a day, however seldom the user opens the app: a token can change, a push can be lost. */
    fun lookDaily(context: Context) {
        val daily = PeriodicWorkRequest.Builder(LookWorker::class.java, 1, TimeUnit.DAYS).setConstraints(online).build()
        WorkManager.getInstance(context)
            .enqueueUniquePeriodicWork("push-relay-daily", ExistingPeriodicWorkPolicy.KEEP, daily)
    }

    private fun enqueue(context: Context, name: String, worker: Class<out Worker>) {
        val request = OneTimeWorkRequest.Builder(worker)
            .setConstraints(online)
            .setBackoffCriteria(BackoffPolicy.EXPONENTIAL, 30, TimeUnit.SECONDS)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) { // an older Android asks for a foreground service instead
            request.setExpedited(OutOfQuotaPolicy.RUN_AS_NON_EXPEDITED_WORK_REQUEST)
        }
        WorkManager.getInstance(context)
            .enqueueUniqueWork("push-relay-$name", ExistingWorkPolicy.APPEND_OR_REPLACE, request.build())
    }
    // endregion

    // region managed
    /** A key of the managed configuration that an MDM sets, e.g. `relay_url`; null: it sets none. */
    fun managed(context: Context, key: String): String? {
        val manager = context.getSystemService(Context.RESTRICTIONS_SERVICE) as RestrictionsManager
        return manager.applicationRestrictions.getString(key)?.takeIf { it.isNotBlank() }
    }
    // endregion

    private val online = Constraints.Builder().setRequiredNetworkType(NetworkType.CONNECTED).build()
    private const val DEVICE = "push-relay-device"
    internal const val NONCE = "push-relay-nonce"
}

// region workers
class LookWorker(context: Context, parameters: WorkerParameters) : Worker(context, parameters) {
    override fun doWork(): Result {
        val host = applicationContext as RelayHost
        val device = Relay.device(applicationContext) ?: return Result.success()
        if (host.relay.identity == null) return Result.success() // not logged in
        val nonce = SealedFile(applicationContext, Relay.NONCE)
        val told = nonce.read()?.let(host.relay::prove) ?: host.relay.opened(device)
        if (told.step == Step.REPEAT) return Result.retry()
        nonce.delete()
        host.act(told)
        return Result.success()
    }
}

class SyncWorker(context: Context, parameters: WorkerParameters) : Worker(context, parameters) {
    override fun doWork(): Result {
        val synced = (applicationContext as RelayHost).sync()
        return if (synced) Result.success() else Result.retry()
    }
}
// endregion
