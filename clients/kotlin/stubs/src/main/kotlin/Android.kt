/*
 * The few declarations of Android, WorkManager, Firebase and the UnifiedPush connector that the modules `android`,
 * `fcm` and `unifiedpush` use. They let those modules compile where there is no Android SDK; nothing here runs, and
 * no app takes it: there the real classes have these names.
 */
package android.content

import java.io.File

abstract class Context {
    abstract val noBackupFilesDir: File
    abstract val packageName: String
    abstract val applicationContext: Context
    abstract fun getSystemService(name: String): Any
    abstract fun getString(id: Int): String

    companion object {
        const val NOTIFICATION_SERVICE = "notification"
        const val RESTRICTIONS_SERVICE = "restrictions"
    }
}

class RestrictionsManager {
    val applicationRestrictions: android.os.Bundle get() = throw NotImplementedError("a stub of Android")
}
