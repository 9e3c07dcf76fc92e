package pushrelay.android

import android.content.Context
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import java.io.File
import java.security.GeneralSecurityException
import java.security.KeyStore
import javax.crypto.Cipher
import javax.crypto.KeyGenerator
import javax.crypto.SecretKey
import javax.crypto.spec.GCMParameterSpec
import pushrelay.Identity
import pushrelay.Json
import pushrelay.Kept
import pushrelay.Store

// region keystore
/**
 * A file that the Keystore of this phone encrypts, in `noBackupFilesDir`: neither a cloud backup nor a transfer to a
 * new phone takes it along, and elsewhere nothing could decrypt it. The key needs no unlocked screen, so that a push
 * at night finds it; before the first unlock after a start (direct boot) the file cannot be reached.
 */
class SealedFile(context: Context, name: String) {
    private val file = File(context.noBackupFilesDir, name)

    fun write(text: String) {
        val cipher = Cipher.getInstance(CIPHER).apply { init(Cipher.ENCRYPT_MODE, key()) }
        val fresh = File(file.path + ".new")
        fresh.writeBytes(cipher.iv + cipher.doFinal(text.encodeToByteArray()))
        check(fresh.renameTo(file)) { "the sealed file could not be replaced" }
    }

    /** The text; null: there is none, or the key is gone, as after a restore. */
    fun read(): String? {
        if (!file.exists()) return null
        val sealed = file.readBytes()
        return try {
            val cipher = Cipher.getInstance(CIPHER)
            cipher.init(Cipher.DECRYPT_MODE, key(), GCMParameterSpec(8 * TAG, sealed, 0, IV))
            cipher.doFinal(sealed, IV, sealed.size - IV).decodeToString()
        } catch (_: GeneralSecurityException) {
            null
        } catch (_: IllegalArgumentException) {
            null
        }
    }

    fun delete() {
        file.delete()
    }

    private companion object {
        const val CIPHER = "AES/GCM/NoPadding"
        const val ALIAS = "push-relay"
        const val IV = 12 // bytes
        const val TAG = 16 // bytes

        fun key(): SecretKey {
            val keys = KeyStore.getInstance("AndroidKeyStore").apply { load(null) }
            keys.getKey(ALIAS, null)?.let { return it as SecretKey }
            val purposes = KeyProperties.PURPOSE_ENCRYPT or KeyProperties.PURPOSE_DECRYPT
            val spec = KeyGenParameterSpec.Builder(ALIAS, purposes)
                .setBlockModes(KeyProperties.BLOCK_MODE_GCM)
                .setEncryptionPaddings(KeyProperties.ENCRYPTION_PADDING_NONE)
                .setKeySize(256)
                .build()
            return KeyGenerator.getInstance(KeyProperties.KEY_ALGORITHM_AES, "AndroidKeyStore").apply { init(spec) }
                .generateKey()
        }
    }
}
// endregion

/** The store of [pushrelay.App] on Android. */
class KeystoreStore(context: Context) : Store {
    private val file = SealedFile(context, "push-relay-registration")

    override fun load(): Kept? {
        val kept = fields(file.read()) ?: return null
        return Kept(Identity(kept["id"] ?: return null, kept["secret"] ?: return null), kept["device"].orEmpty())
    }

    override fun save(kept: Kept) {
        val fields = mapOf("id" to kept.identity.id, "secret" to kept.identity.secret, "device" to kept.device)
        file.write(Json.write(fields))
    }

    override fun erase() = file.delete()
}

internal fun fields(text: String?): Map<String, String>? = try {
    (text?.let(Json::read) as? Map<*, *>)?.entries?.associate { (name, value) -> "$name" to "$value" }
} catch (_: Json.NotJson) {
    null
}
