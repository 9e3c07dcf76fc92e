package android.content

import java.io.File

open class ContextStub : Context() {
    override val noBackupFilesDir: File get() = throw NotImplementedError("a stub of Android")
    override val packageName: String get() = throw NotImplementedError("a stub of Android")
    override val applicationContext: Context get() = throw NotImplementedError("a stub of Android")

    override fun getSystemService(name: String): Any = throw NotImplementedError("a stub of Android, for $name")

    override fun getString(id: Int): String = throw NotImplementedError("a stub of Android, for $id")
}
