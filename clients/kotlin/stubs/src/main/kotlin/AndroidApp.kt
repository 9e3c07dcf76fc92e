package android.app

open class Application : android.content.ContextStub() {
    open fun onCreate() = Unit
}

open class Activity : android.content.ContextStub() {
    fun requestPermissions(permissions: Array<String>, request: Int): Unit =
        throw NotImplementedError("a stub of Android, for ${permissions.size} in $request")
}

open class Service : android.content.ContextStub()

class NotificationChannel(val id: String, val name: CharSequence, val importance: Int)

class NotificationManager {
    fun createNotificationChannel(channel: NotificationChannel): Unit =
        throw NotImplementedError("a stub of Android, for ${channel.id}")

    companion object {
        const val IMPORTANCE_DEFAULT = 3
        const val IMPORTANCE_HIGH = 4
    }
}
