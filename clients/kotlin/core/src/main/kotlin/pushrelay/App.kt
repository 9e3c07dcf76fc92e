package pushrelay

import kotlin.random.Random

/** What an app keeps between its starts. */
class Kept(
    val identity: Identity,
    /** A fingerprint of the device as the relay last took it: a start sends nothing unless it changed. */
    val device: String,
)

/**
 * Where an app keeps what it must not lose and must not show: a file that the Keystore encrypts, in no backup. A
 * registration that a backup carries to another phone is two phones with one secret.
 */
interface Store {
    fun load(): Kept?

    /** Keep it, in place of what was kept before, before this returns. */
    fun save(kept: Kept)

    fun erase()
}

/** What the app does next, and the registration if the relay showed it. */
class Told(
    val step: Step,
    val registration: Registration? = null,
    /** For logs and an administrator, in English. */
    val detail: String = "",
    /** With [Step.REPEAT]: seconds that the relay asks to wait before a later try. */
    val retryAfter: Long? = null,
)

/**
 * Drives one mailbox in one app on one phone: call it at the events of the app, and do what it returns.
 *
 * Its methods block: call them from a `Worker` or another background thread, one at a time.
 */
class App(
    private val api: RelayApi,
    private val store: Store,
    /** How often a request is sent before the app gives up for now and leaves the rest to its next job. */
    private val attempts: Int = 3,
    private val sleep: (Long) -> Unit = Thread::sleep,
    private val chance: () -> Double = Random.Default::nextDouble,
) {
    val identity: Identity? get() = store.load()?.identity

    /** Register, after the user gave a credential. */
    fun register(wish: Wish): Told = try {
        val (registration, identity) = api.post(wish)
        store.save(Kept(identity, fingerprint(wish.device)))
        Told(advise(registration), registration)
    } catch (refused: Refused) {
        told(refused)
    } catch (lost: Unreachable) {
        Told(Step.REPEAT, detail = lost.message.orEmpty())
    }

    // region opened
    /**
     * Look at the registration: at each start, when the app comes to the foreground, after [Attention], and when FCM
     * says that it dropped messages. [device] is what the system gives the app now; a changed one is sent first.
     */
    fun opened(device: Device): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        if (fingerprint(device) != kept.device) return tokenChanged(device)
        return repeated { api.get(kept.identity) }
    }
    // endregion

    /** Send the device as the system gives it now; a registration in state `token-gone` becomes active again. */
    fun tokenChanged(device: Device): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        val told = repeated { api.patch(kept.identity, device = device) }
        if (told.registration != null) store.save(Kept(kept.identity, fingerprint(device)))
        return told
    }

    /** Let the next [opened] send the device, even one that did not change: FCM may have made its registration anew. */
    fun deviceAnnounced() {
        store.load()?.let { store.save(Kept(it.identity, device = "")) }
    }

    /** Send the credential that the user just typed; a refused one is never repeated. */
    fun credentialChanged(credential: Credential): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        return repeated { api.patch(kept.identity, credential = credential) }
    }

    /** What a push says; null: it is not for this registration, so show nothing. */
    fun received(push: Push?): Push? = push?.takeIf { it.registration == store.load()?.identity?.id }

    /** Ask for a test push. It is not repeated: a lost answer may stand for a push that is on its way. */
    fun testPush(): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        return try {
            api.testPush(kept.identity)
            Told(Step.NOTHING)
        } catch (refused: Refused) {
            told(refused)
        } catch (lost: Unreachable) {
            Told(Step.REPEAT, detail = lost.message.orEmpty())
        }
    }

    /** Remove the registration. Without an answer it is kept, so that a later job can try again. */
    fun logout(): Told {
        val kept = store.load() ?: return Told(Step.NOTHING)
        val told = repeated {
            api.delete(kept.identity)
            null
        }
        if (told.step !in ENDED + Step.NOTHING) return told
        store.erase()
        return Told(Step.NOTHING)
    }

    private fun repeated(request: () -> Registration?): Told {
        var attempt = 0
        while (true) {
            attempt++
            val told = try {
                val registration = request()
                return Told(if (registration == null) Step.NOTHING else advise(registration), registration)
            } catch (refused: Refused) {
                told(refused)
            } catch (lost: Unreachable) {
                Told(Step.REPEAT, detail = lost.message.orEmpty())
            }
            if (told.step != Step.REPEAT || attempt == attempts) return told
            sleep(wait(attempt, told.retryAfter, chance()))
        }
    }

    /** What a refusal asks for; a registration that ended is forgotten. */
    private fun told(refused: Refused): Told {
        val step = advise(refused.problem)
        if (step in ENDED) store.erase()
        return Told(step, detail = refused.message.orEmpty(), retryAfter = refused.problem.retryAfter)
    }

    private companion object {
        val ENDED = setOf(Step.REGISTER_AGAIN, Step.NOT_REGISTERED, Step.WIPE)
    }
}

/** A hash of what the relay knows of a device: it tells whether the device changed, and reveals no token. */
fun fingerprint(device: Device): String =
    java.security.MessageDigest.getInstance("SHA-256").digest(Json.write(device.whole()).encodeToByteArray())
        .joinToString("") { "%02x".format(it) }
