package pushrelay.jvm

import java.io.IOException
import java.net.URI
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.time.Duration
import javax.net.ssl.SSLContext
import pushrelay.Answer
import pushrelay.Transport
import pushrelay.readBounded

/** The transport of a plain JVM (11 or newer); Android has no `java.net.http`. */
class HttpClientTransport(private val base: String, tls: SSLContext = SSLContext.getDefault()) : Transport {
    private val client = HttpClient.newBuilder().sslContext(tls).connectTimeout(Duration.ofSeconds(15)).build()

    override fun exchange(method: String, path: String, headers: Map<String, String>, body: ByteArray?): Answer {
        val publisher =
            if (body == null) HttpRequest.BodyPublishers.noBody() else HttpRequest.BodyPublishers.ofByteArray(body)
        val request = HttpRequest.newBuilder(URI(base + path)).timeout(Duration.ofSeconds(30)).method(method, publisher)
        for ((name, value) in headers) request.header(name, value)
        val response = try {
            client.send(request.build(), HttpResponse.BodyHandlers.ofInputStream())
        } catch (error: InterruptedException) {
            Thread.currentThread().interrupt()
            throw IOException("interrupted", error)
        }
        val retryAfter = response.headers().firstValue("Retry-After").orElse(null)
        return Answer(response.statusCode(), retryAfter, response.body().use(::readBounded))
    }
}
