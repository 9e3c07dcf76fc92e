package org.unifiedpush.android.connector

import android.app.Service
import android.content.Context
import org.unifiedpush.android.connector.data.PushEndpoint
import org.unifiedpush.android.connector.data.PushMessage

enum class FailedReason { INTERNAL_ERROR, NETWORK, ACTION_REQUIRED, VAPID_REQUIRED }

/** As of the connector 3: all four are abstract. */
abstract class PushService : Service() {
    abstract fun onNewEndpoint(endpoint: PushEndpoint, instance: String)

    abstract fun onMessage(message: PushMessage, instance: String)

    abstract fun onRegistrationFailed(reason: FailedReason, instance: String)

    abstract fun onUnregistered(instance: String)
}

object UnifiedPush {
    fun tryUseCurrentOrDefaultDistributor(context: Context, callback: (Boolean) -> Unit): Unit =
        throw NotImplementedError("a stub of the connector, for $context, $callback")

    fun register(
        context: Context,
        instance: String = "default",
        messageForDistributor: String? = null,
        vapid: String? = null,
    ): Unit = throw NotImplementedError("a stub of the connector, for $context, $instance, $messageForDistributor, $vapid")

    fun unregister(context: Context, instance: String = "default"): Unit =
        throw NotImplementedError("a stub of the connector, for $context, $instance")
}
