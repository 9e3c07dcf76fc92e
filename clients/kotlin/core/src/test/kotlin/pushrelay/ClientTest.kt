package pushrelay

import java.io.IOException
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

class MemoryStore : Store {
    private var kept: Kept? = null

    override fun load() = kept

    override fun save(kept: Kept) {
        this.kept = kept
    }

    override fun erase() {
        kept = null
    }
}

/** A relay that answers as a script says: status and body, or no answer. */
class ClientTest {
    private val asked = mutableListOf<String>()
    private val waits = mutableListOf<Long>()
    private val answers = ArrayDeque<Answer?>()
    private val api = RelayApi { method, path, headers, body ->
        val shown = path.replace(Regex("(?<=registrations/)[A-Za-z0-9_-]{24}(?=$|/)"), "ID")
        val secret = headers["Authorization"]?.replace(Regex("^Bearer [A-Za-z0-9_-]{43}$"), "SECRET")
        asked += listOfNotNull(method, shown, secret, headers["Enrolment-Key"], body?.decodeToString()).joinToString(" ")
        answers.removeFirst() ?: throw IOException("cut")
    }
    private val app = App(api, MemoryStore(), sleep = { waits += it }, chance = { 1.0 })
    private val old = Fcm("com.example.mail", "old-token")
    private val new = Fcm("com.example.mail", "new-token")

    private fun relay(vararg scripted: Answer?) = answers.addAll(scripted)

    private fun answer(status: Int, body: String, retryAfter: String? = null) =
        Answer(status, retryAfter, body.encodeToByteArray())

    private fun active() = answer(200, """{"id":"r1","state":"active"}""")

    private fun problem(status: Int, code: String, retryAfter: String? = null) =
        answer(status, """{"code":"$code"}""", retryAfter)

    private fun registered() {
        relay(active())
        assertEquals(Step.NOTHING, app.register(Wish("ann@example.com", Basic("secret"), old)).step)
        asked.clear()
    }

    fun `a changed token is sent once`() {
        registered()
        relay(active(), active())

        assertEquals(Step.NOTHING, app.opened(new).step)
        assertEquals(Step.NOTHING, app.opened(new).step)

        val patch = """PATCH /v1/registrations/ID SECRET {"device":{"token":"new-token"}}"""
        assertEquals(listOf(patch, "GET /v1/registrations/ID SECRET"), asked)
    }

    fun `a device that was announced again is sent again`() {
        app.deviceAnnounced()
        registered()
        relay(active(), active())
        app.deviceAnnounced()

        assertEquals(Step.NOTHING, app.opened(Fid("com.example.mail", "fid")).step)
        assertEquals(Step.NOTHING, app.opened(Fid("com.example.mail", "fid")).step)
        assertEquals("""PATCH /v1/registrations/ID SECRET {"device":{"fid":"fid"}}""", asked.first())
        assertEquals("GET /v1/registrations/ID SECRET", asked.last())
    }

    fun `what passes is repeated after the time that the relay names`() {
        registered()
        relay(problem(503, "busy", "20"), null, active())

        assertEquals(Step.NOTHING, app.opened(old).step)
        assertEquals(listOf(22_000L, 4_000L), waits)
    }

    fun `it gives up for now and keeps the registration`() {
        registered()
        relay(null, null, problem(429, "too-many-requests", "60"), active())

        val told = app.opened(old)
        assertEquals(Step.REPEAT, told.step)
        assertEquals(60L, told.retryAfter)
        assertEquals(Step.NOTHING, app.opened(old).step)
    }

    fun `a long wait is the app's to tell, not the call's to sleep through`() {
        relay(problem(429, "too-many-refusals", "1800"))

        val told = app.register(Wish("ann@example.com", Basic("secret"), old))
        assertEquals(Step.REPEAT to 1800L, told.step to told.retryAfter)
        assertEquals(emptyList<Long>(), waits)
    }

    fun `a refused password is never repeated`() {
        registered()
        relay(problem(403, "credential-refused"))

        assertEquals(Step.ASK_USER, app.credentialChanged(Basic("wrong")).step)
        assertEquals(listOf("""PATCH /v1/registrations/ID SECRET {"credential":{"kind":"basic","password":"wrong"}}"""), asked)
        assertTrue(waits.isEmpty())
    }

    fun `a registration that ended is forgotten`() {
        for ((status, code, step) in listOf(
            Triple(401, "not-authorized", Step.NOT_REGISTERED),
            Triple(410, "gone", Step.REGISTER_AGAIN),
            Triple(410, "wiped", Step.WIPE),
            Triple(409, "replaced", Step.NOT_REGISTERED),
        )) {
            registered()
            relay(problem(status, code))
            assertEquals(step, app.opened(old).step)
            assertNull(app.identity)
            assertEquals(Step.NOT_REGISTERED, app.opened(old).step)
            assertEquals(Step.NOT_REGISTERED, app.tokenChanged(old).step)
            assertEquals(Step.NOT_REGISTERED, app.credentialChanged(Basic("x")).step)
            assertEquals(Step.NOT_REGISTERED, app.testPush().step)
            assertEquals(Step.NOTHING, app.logout().step)
        }
    }

    fun `a logout without an answer is tried again later`() {
        registered()
        relay(null, null, null, answer(204, ""))

        assertEquals(Step.REPEAT, app.logout().step)
        assertNotNull(app.identity)
        assertEquals(Step.NOTHING, app.logout().step)
        assertNull(app.identity)
    }

    fun `an enrolment key goes with the registration only`() {
        relay(active(), active())
        app.register(Wish("ann@example.com", Basic("secret"), old, enrolmentKey = "key"))
        app.opened(old)

        assertTrue(asked.first().startsWith("PUT /v1/registrations/ID SECRET key {"))
        assertTrue(" key" !in asked.last())
    }

    fun `what a registration may be is asked without a secret`() {
        relay(answer(200, """{"version":"1"}"""), answer(200, "{}"))

        assertEquals<Any?>("1", api.capabilities("ann+x@example.com")["version"])
        api.capabilities()
        assertEquals(listOf("GET /v1/capabilities?mailbox=ann%2Bx%40example.com", "GET /v1/capabilities"), asked)
    }

    fun `a test push is not repeated`() {
        registered()
        relay(null, problem(429, "too-many-tests", "10"))

        assertEquals(listOf(Step.REPEAT, Step.REPEAT), (1..2).map { app.testPush().step })
        assertTrue(waits.isEmpty())
    }

    fun `a test push tells what became of it`() {
        val steps = mapOf(
            """"state":"delivered"""" to Step.NOTHING,
            """"state":"refused","remedy":{"by":"app","text":"token"}""" to Step.SEND_TOKEN,
            """"state":"refused","remedy":{"by":"administrator","text":"key"}""" to Step.TELL_ADMINISTRATOR,
        )
        for ((found, step) in steps) {
            registered()
            relay(answer(202, """{"id":"r1","test":{"id":"t1","state":"queued"}}"""), answer(200, """{"id":"t1",$found}"""))
            assertEquals(step, app.testPush().step)
            assertEquals("GET /v1/registrations/ID/test-pushes/t1 SECRET", asked.last())
        }
        relay(answer(202, """{"test":{"id":"t1"}}"""), *Array(5) { answer(200, """{"id":"t1","state":"queued"}""") })
        assertEquals(Step.WAIT, app.testPush().step)
    }

    fun `a challenge is answered and another one asked for`() {
        val proving = answer(200, """{"id":"r1","state":"proving","remedy":{"by":"app"}}""")
        relay(proving, proving, problem(429, "too-many-challenges"), active())

        assertEquals(Step.NOT_REGISTERED, app.prove("n").step)
        assertEquals(Step.WAIT, app.register(Wish("ann@example.com", Basic("secret"), old)).step)
        assertEquals(Step.WAIT, app.opened(old).step)
        assertEquals(Step.NOTHING, app.prove("n").step)
        assertEquals("POST /v1/registrations/ID/challenge SECRET", asked[2])
        assertEquals("""POST /v1/registrations/ID/proof SECRET {"nonce":"n"}""", asked[3])
    }

    fun `only pushes of its own registration count`() {
        assertNull(app.received(TestPush("other")))
        registered()
        val own = TestPush(app.identity!!.id)
        assertEquals<Push?>(own, app.received(own))
        assertNull(app.received(TestPush("other")))
        assertNull(app.received(null))
    }

    fun `what no relay answers is no answer`() {
        relay(answer(200, "<html>"), answer(200, "{}"), answer(302, ""), answer(200, """{"vapid_public_key":"BK"}"""))

        assertFailsWith<Unreachable> { api.vapidPublicKey() }
        assertFailsWith<Unreachable> { api.vapidPublicKey() }
        assertEquals("http-302", assertFailsWith<Refused> { api.vapidPublicKey() }.problem.code)
        assertEquals("BK", api.vapidPublicKey())
    }

    fun `a refused password leaves nothing`() {
        relay(problem(403, "credential-refused"))
        val wish = Wish("ann@example.com", Basic("secret"), WebPush("com.example.mail", "https://push.example.com/1", "p", "a"))

        assertEquals(Step.ASK_USER, app.register(wish).step)
        assertNull(app.identity)
        val device = """"device":{"platform":"webpush","app":"com.example.mail","endpoint":"https://push.example.com/1","""
        assertTrue(device + """"keys":{"p256dh":"p","auth":"a"}}""" in asked.first())
    }

    fun `a registration without an answer goes on under the same id and secret`() {
        relay(null, null, null, active())
        val wish = Wish("ann@example.com", Basic("secret"), old)

        assertEquals(Step.REPEAT, app.register(wish).step)
        val kept = app.identity!!.id
        assertEquals(Step.NOTHING, app.register(wish).step)
        assertEquals(kept, app.identity!!.id)
        assertTrue(asked.all { it.startsWith("PUT /v1/registrations/ID SECRET {") })
    }

    fun `a new log-in keeps the registration even if its password is refused`() {
        registered()
        val kept = app.identity!!.id
        relay(problem(403, "credential-refused"), active())
        val wish = Wish("ann@example.com", Basic("secret"), old)

        assertEquals(listOf(Step.ASK_USER, Step.NOTHING), (1..2).map { app.register(wish).step })
        assertEquals(kept, app.identity!!.id)
    }

    fun `a log-in after the end takes a new identity`() {
        for ((status, code) in listOf(410 to "gone", 401 to "not-authorized")) {
            registered()
            val before = app.identity!!.id
            relay(problem(status, code), active())
            assertEquals(Step.NOTHING, app.register(Wish("ann@example.com", Basic("secret"), old)).step)
            assertNotEquals(before, app.identity!!.id)
        }
    }

    fun `a wiped phone does not register again by itself`() {
        registered()
        relay(problem(410, "wiped"))

        assertEquals(Step.WIPE, app.register(Wish("ann@example.com", Basic("secret"), old)).step)
        assertNull(app.identity)
    }
}
