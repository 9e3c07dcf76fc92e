package pushrelay

import kotlin.random.Random

/** What an app keeps between its starts. */
class Kept(
    val identity: Identity,
    /** A fingerprint of the device as the relay last took it: a start sends nothing unless it changed; empty: send it. */
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

    // region register
    /**
     * Register, after the user gave a credential; again for the same mailbox at a new log-in. Id and secret are kept
     * before the request leaves: if all answers are lost, the next call goes on with them.
     */
    fun register(wish: Wish): Told {
        val kept = store.load()
        val told = put(kept?.identity ?: Identity.make(), kept?.device.orEmpty(), wish)
        val ended = told.step == Step.NOT_REGISTERED || told.step == Step.REGISTER_AGAIN
        return if (kept != null && ended) put(Identity.make(), "", wish) else told
    }

    private fun put(identity: Identity, before: String, wish: Wish): Told {
        store.save(Kept(identity, before))
        val told = repeated { api.put(identity, wish) }
        when {
            told.registration != null -> store.save(Kept(identity, fingerprint(wish.device)))
            told.step != Step.REPEAT && before.isEmpty() -> store.erase() // the relay kept nothing
        }
        return told
    }
    // endregion

    // region opened
    /**
     * Look at the registration: at each start, when the app comes to the foreground, after [Attention], and when FCM
     * says that it dropped messages. [device] is what the system gives the app now; a changed one is sent first.
     */
    fun opened(device: Device): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        if (fingerprint(device) != kept.device) return tokenChanged(device)
        val told = repeated { api.get(kept.identity) }
        if (told.registration?.state == "proving" && told.step == Step.WAIT) {
            asked { api.challenge(kept.identity) } // the last challenge push may be lost
        }
        return told
    }
    // endregion

    /** Send the device as the system gives it now; a registration in state `token-gone` becomes active again. */
    fun tokenChanged(device: Device): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        val told = repeated { api.patch(kept.identity, device = device) }
        if (told.registration != null) store.save(Kept(kept.identity, fingerprint(device)))
        return told
    }

    /** Let the next [opened] send the device, even one that did not change: FCM may have made its registration again. */
    fun deviceAnnounced() {
        store.load()?.let { store.save(Kept(it.identity, device = "")) }
    }

    /** Give back the nonce of a [Challenge]: until the relay has it, no other push comes. */
    fun prove(nonce: String): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        return repeated { api.prove(kept.identity, nonce) }
    }

    /** Send the credential that the user just typed; a refused one is never repeated. */
    fun credentialChanged(credential: Credential): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        return repeated { api.patch(kept.identity, credential = credential) }
    }

    /** What a push says; null: it is not for this registration, so show nothing. */
    fun received(push: Push?): Push? = push?.takeIf { it.registration == store.load()?.identity?.id }

    /**
     * Send a test push; returns what became of it, after so many looks at most. The request is not repeated: a lost
     * answer may stand for a push that is on its way.
     */
    fun testPush(looks: Int = 5): Told {
        val kept = store.load() ?: return Told(Step.NOT_REGISTERED)
        return asked {
            var test = api.testPush(kept.identity)
            for (look in 1..looks) {
                if (test.state != "queued") break
                sleep(wait(look, null, chance()))
                test = api.testResult(kept.identity, test)
            }
            Told(advise(test), detail = test.remedy.ifEmpty { test.state })
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
            val told = asked {
                val registration = request()
                Told(if (registration == null) Step.NOTHING else advise(registration), registration)
            }
            if (told.step != Step.REPEAT || attempt == attempts || (told.retryAfter ?: 0) > PATIENCE) return told
            sleep(wait(attempt, told.retryAfter, chance()))
        }
    }

    private fun asked(request: () -> Any): Told = try {
        request() as? Told ?: Told(Step.NOTHING)
    } catch (refused: Refused) {
        told(refused)
    } catch (lost: Unreachable) {
        Told(Step.REPEAT, detail = lost.message.orEmpty())
    }

    /** What a refusal asks for; a registration that ended is forgotten. */
    private fun told(refused: Refused): Told {
        val step = advise(refused.problem)
        if (step in ENDED) store.erase()
        return Told(step, detail = refused.message.orEmpty(), retryAfter = refused.problem.retryAfter)
    }

    private companion object {
        /**
         * Seconds that a call waits for its next try at most. If the relay asks for more, as for half an hour after
         * passwords that were refused, the app gets the answer at once, and says so to the user.
         */
        const val PATIENCE = 30L
        val ENDED = setOf(Step.REGISTER_AGAIN, Step.NOT_REGISTERED, Step.WIPE)
    }
}

/** A hash of what the relay knows of a device: it tells whether the device changed, and reveals no token. */
fun fingerprint(device: Device): String =
    java.security.MessageDigest.getInstance("SHA-256").digest(Json.write(device.whole()).encodeToByteArray())
        .joinToString("") { "%02x".format(it) }
