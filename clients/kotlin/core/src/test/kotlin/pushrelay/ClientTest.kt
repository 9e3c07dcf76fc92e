package pushrelay

import java.io.IOException
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
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
        val secret = headers["Authorization"]?.removePrefix("Bearer ")
        asked += listOfNotNull(method, path, secret, headers["Enrolment-Key"], body?.decodeToString()).joinToString(" ")
        answers.removeFirst() ?: throw IOException("cut")
    }
    private val app = App(api, MemoryStore(), sleep = { waits += it }, chance = { 1.0 })
    private val old = Fcm("com.example.mail", "old-token")
    private val new = Fcm("com.example.mail", "new-token")

    private fun relay(vararg scripted: Answer?) = answers.addAll(scripted)

    private fun answer(status: Int, body: String, retryAfter: String? = null) =
        Answer(status, retryAfter, body.encodeToByteArray())

    private fun active(secret: String = "") = answer(200, """{"id":"r1","state":"active"$secret}""")

    private fun problem(status: Int, code: String, retryAfter: String? = null) =
        answer(status, """{"code":"$code"}""", retryAfter)

    private fun registered() {
        relay(active(""","secret":"s1""""))
        assertEquals(Step.NOTHING, app.register(Wish("ann@example.com", Basic("secret"), old)).step)
        asked.clear()
    }

    fun `a changed token is sent once`() {
        registered()
        relay(active(), active())

        assertEquals(Step.NOTHING, app.opened(new).step)
        assertEquals(Step.NOTHING, app.opened(new).step)

        val patch = """PATCH /v1/registrations/r1 s1 {"device":{"token":"new-token"}}"""
        assertEquals(listOf(patch, "GET /v1/registrations/r1 s1"), asked)
    }

    fun `a device that was announced again is sent again`() {
        app.deviceAnnounced()
        registered()
        relay(active(), active())
        app.deviceAnnounced()

        assertEquals(Step.NOTHING, app.opened(Fid("com.example.mail", "fid")).step)
        assertEquals(Step.NOTHING, app.opened(Fid("com.example.mail", "fid")).step)
        assertEquals("""PATCH /v1/registrations/r1 s1 {"device":{"fid":"fid"}}""", asked.first())
        assertEquals("GET /v1/registrations/r1 s1", asked.last())
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

    fun `a refused password is never repeated`() {
        registered()
        relay(problem(403, "credential-refused"))

        assertEquals(Step.ASK_USER, app.credentialChanged(Basic("wrong")).step)
        assertEquals(listOf("""PATCH /v1/registrations/r1 s1 {"credential":{"kind":"basic","password":"wrong"}}"""), asked)
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
        assertEquals("r1", app.identity?.id)
        assertEquals(Step.NOTHING, app.logout().step)
        assertNull(app.identity)
    }

    fun `an enrolment key goes with the registration only`() {
        relay(active(), active())
        app.register(Wish("ann@example.com", Basic("secret"), old, enrolmentKey = "key"))
        app.opened(old)

        assertTrue(asked.first().startsWith("POST /v1/registrations key {"))
        assertTrue(" key" !in asked.last())
    }

    fun `a test push is not repeated`() {
        registered()
        relay(null, problem(429, "too-many-tests", "10"), active())

        assertEquals(listOf(Step.REPEAT, Step.REPEAT, Step.NOTHING), (1..3).map { app.testPush().step })
        assertTrue(waits.isEmpty())
    }

    fun `only pushes of its own registration count`() {
        assertNull(app.received(TestPush("r1")))
        registered()
        assertEquals<Push?>(TestPush("r1"), app.received(TestPush("r1")))
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

    fun `neither refusals nor lost answers register`() {
        relay(problem(403, "credential-refused"), null)
        val wish = Wish("ann@example.com", Basic("secret"), WebPush("com.example.mail", "https://push.example.com/1", "p", "a"))

        assertEquals(listOf(Step.ASK_USER, Step.REPEAT), (1..2).map { app.register(wish).step })
        assertNull(app.identity)
        val device = """"device":{"platform":"webpush","app":"com.example.mail","endpoint":"https://push.example.com/1","""
        assertTrue(device + """"keys":{"p256dh":"p","auth":"a"}}""" in asked.first())
    }
}
