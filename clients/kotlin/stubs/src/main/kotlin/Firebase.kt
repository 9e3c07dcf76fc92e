package com.google.firebase.messaging

import android.app.Service

class RemoteMessage {
    val data: Map<String, String> get() = throw NotImplementedError("a stub of Firebase")
}

/** As of firebase-messaging 25.1: `onRegistered` and `onUnregistered` came with installation ids. */
open class FirebaseMessagingService : Service() {
    open fun onNewToken(token: String) = Unit

    open fun onRegistered(installationId: String) = Unit

    open fun onUnregistered(installationId: String) = Unit

    open fun onMessageReceived(message: RemoteMessage) = Unit

    open fun onDeletedMessages() = Unit
}
