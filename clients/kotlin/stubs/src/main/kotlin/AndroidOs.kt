package android.os

class Bundle {
    fun getString(name: String): String? = throw NotImplementedError("a stub of Android, for $name")
}

class Build {
    object VERSION {
        val SDK_INT: Int get() = throw NotImplementedError("a stub of Android")
    }

    object VERSION_CODES {
        const val S = 31
    }
}
