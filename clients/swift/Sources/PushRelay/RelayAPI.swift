import Foundation

/// The requests of the API, one method each; nothing is repeated here. Throws `Problem` or `Unreachable`.
public struct RelayAPI: Sendable {
    let base: URL
    let session: URLSession

    /// `session` with a delegate of your own pins a certificate; a company's CA that the MDM installed needs none.
    public init(base: URL, session: URLSession = RelayAPI.quiet) {
        self.base = base
        self.session = session
    }

    /// A session that writes nothing to disk and answers in bounded time.
    public static let quiet: URLSession = {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = 30
        configuration.waitsForConnectivity = false
        return URLSession(configuration: configuration)
    }()

    /// What a registration may be: platforms, kinds of credentials, what enrolment needs; ask before a log-in. The answer
    /// is the same whether the mailbox exists or not.
    public func capabilities(mailbox: String? = nil) async throws -> [String: Any] {
        let query = mailbox.map { [URLQueryItem(name: "mailbox", value: $0)] }
        return try await ask("GET", nil, nil, query: query)
    }

    /// Register under an id and a secret that the app made, or make the registration what the wish says. The same again
    /// makes no second registration and tries no accepted credential again: so repeat it until an answer comes.
    public func put(_ identity: Identity, _ wish: Wish) async throws -> Registration {
        try read(await ask("PUT", "/\(identity.id)", identity, wish.body, key: wish.enrolmentKey))
    }

    public func get(_ identity: Identity) async throws -> Registration {
        try read(await ask("GET", "/\(identity.id)", identity))
    }

    /// Change the address of the device, the credential, or of the `wishes` classes, subfolders, mode, locale.
    public func patch(
        _ identity: Identity, device: Device? = nil, credential: Credential? = nil, wishes: [String: Any] = [:]
    ) async throws -> Registration {
        var body = wishes
        body["device"] = device?.address
        body["credential"] = credential?.fields
        return try read(await ask("PATCH", "/\(identity.id)", identity, body))
    }

    public func delete(_ identity: Identity) async throws {
        _ = try await ask("DELETE", "/\(identity.id)", identity)
    }

    /// Ask for a test push; returns it as it is queued.
    public func testPush(_ identity: Identity) async throws -> TestResult {
        let answer = try await ask("POST", "/\(identity.id)/test-push", identity)
        return TestResult(answer: answer["test"] as? [String: Any] ?? [:])
    }

    /// What became of a test push.
    public func testResult(_ identity: Identity, _ test: TestResult) async throws -> TestResult {
        TestResult(answer: try await ask("GET", "/\(identity.id)/test-pushes/\(test.id)", identity))
    }

    /// Give back the nonce of a challenge push: this phone holds the device token.
    public func prove(_ identity: Identity, nonce: String) async throws -> Registration {
        try read(await ask("POST", "/\(identity.id)/proof", identity, ["nonce": nonce]))
    }

    /// Ask for another challenge push.
    public func challenge(_ identity: Identity) async throws {
        _ = try await ask("POST", "/\(identity.id)/challenge", identity)
    }

    private func read(_ answer: [String: Any]) throws -> Registration {
        guard let registration = Registration(answer: answer) else {
            throw Unreachable(what: "the answer is not a registration")
        }
        return registration
    }

    private func ask(
        _ method: String, _ path: String?, _ identity: Identity?, _ body: [String: Any]? = nil, key: String? = nil,
        query: [URLQueryItem]? = nil
    ) async throws -> [String: Any] {
        var parts = URLComponents(url: base, resolvingAgainstBaseURL: true)
        parts?.path = path.map { "/v1/registrations" + $0 } ?? "/v1/capabilities"
        parts?.queryItems = query
        guard let url = parts?.url else { throw Unreachable(what: "the address of the relay is no URL") }
        var request = URLRequest(url: url)
        request.httpMethod = method
        if let identity { request.setValue("Bearer \(identity.secret)", forHTTPHeaderField: "Authorization") }
        if let key { request.setValue(key, forHTTPHeaderField: "Enrolment-Key") }
        if let body {
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
            request.httpBody = try JSONSerialization.data(withJSONObject: body)
        }
        let data: Data
        let response: URLResponse
        do {
            (data, response) = try await session.data(for: request)
        } catch let error as URLError {
            throw Unreachable(what: "\(method): \(error.code.rawValue)")
        }
        guard let http = response as? HTTPURLResponse else { throw Unreachable(what: "\(method): no HTTP") }
        let document = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any]
        guard (200..<300).contains(http.statusCode) else {
            let retryAfter = http.value(forHTTPHeaderField: "Retry-After")
            throw Problem(status: http.statusCode, document: document, retryAfter: retryAfter)
        }
        if http.statusCode == 204 { return [:] }
        guard let document else { throw Unreachable(what: "\(method): the answer is not a relay's") }
        return document
    }
}
