import Foundation

/// What the app does next, and the registration if the relay showed it.
public struct Told: Sendable {
    public let step: Step
    public var registration: Registration?
    /// For logs and an administrator, in English.
    public var detail: String
    /// With `repeatLater`: seconds that the relay asks to wait before a later try.
    public var retryAfter: Double?

    public init(step: Step, registration: Registration? = nil, detail: String = "", retryAfter: Double? = nil) {
        self.step = step
        self.registration = registration
        self.detail = detail
        self.retryAfter = retryAfter
    }
}

/// Drives one mailbox in one app on one phone: call it at the events of the app, and do what it returns.
public actor RelayApp {
    private let api: RelayAPI
    private let store: Store
    private let attempts: Int

    /// `attempts`: how often a request is sent before the app gives up for now and leaves the rest to its next start.
    public init(api: RelayAPI, store: Store, attempts: Int = 3) {
        self.api = api
        self.store = store
        self.attempts = attempts
    }

    public var identity: Identity? { store.load()?.identity }

    // region register
    /// Register, after the user gave a credential; again for the same mailbox at a new log-in. Id and secret are kept
    /// before the request leaves: if all answers are lost, the next call goes on with them.
    public func register(_ wish: Wish) async throws -> Told {
        let kept = store.load()
        let told = try await put(kept ?? Kept(identity: .make(), token: ""), wish)
        let ended = told.step == .notRegistered || told.step == .registerAgain
        if kept == nil || !ended { return told }
        return try await put(Kept(identity: .make(), token: ""), wish) // what was kept had ended
    }

    private func put(_ kept: Kept, _ wish: Wish) async throws -> Told {
        try store.save(kept)
        let told = try await repeated { try await self.api.put(kept.identity, wish) }
        if told.registration != nil {
            try store.save(Kept(identity: kept.identity, token: wish.device.token))
        } else if told.step != .repeatLater && kept.token.isEmpty {
            store.erase() // the relay kept nothing
        }
        return told
    }
    // endregion

    // region opened
    /// Look at the registration: at each start, when the app comes to the foreground, after `attention`. `device` is
    /// what the system gives the app now; a changed token is sent first.
    public func opened(_ device: Device) async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        if device.token != kept.token { return try await tokenChanged(device) }
        let told = try await repeated { try await self.api.get(kept.identity) }
        if told.registration?.state == "proving" && told.step == .wait {
            _ = try await asked { // the last challenge push may be lost
                try await self.api.challenge(kept.identity)
                return Told(step: .wait)
            }
        }
        return told
    }
    // endregion

    /// Send the device as the system gives it now; a registration in state `token-gone` becomes active again.
    public func tokenChanged(_ device: Device) async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        let told = try await repeated { try await self.api.patch(kept.identity, device: device) }
        if told.registration != nil { try store.save(Kept(identity: kept.identity, token: device.token)) }
        return told
    }

    /// Send the credential that the user just typed; a refused one is never repeated.
    public func credentialChanged(_ credential: Credential) async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        return try await repeated { try await self.api.patch(kept.identity, credential: credential) }
    }

    /// What a push says; nil: it is not for this registration, so do nothing. A challenge is answered here: until the
    /// relay has its nonce back, no other push comes.
    public func received(_ userInfo: [AnyHashable: Any]) async -> Push? {
        guard let push = Push(userInfo: userInfo), let identity, push.registration == identity.id else { return nil }
        if case let .challenge(_, nonce) = push {
            _ = try? await repeated { try await self.api.prove(identity, nonce: nonce) }
        }
        return push
    }

    /// Send a test push; returns what became of it, after so many looks at most. The request is not repeated: a lost
    /// answer may stand for a push that is on its way.
    public func testPush(looks: Int = 5) async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        return try await asked {
            var test = try await self.api.testPush(kept.identity)
            for look in 1...looks where test.state == "queued" {
                try await self.pause(wait(attempt: look, retryAfter: nil, chance: Double.random(in: 0...1)))
                test = try await self.api.testResult(kept.identity, test)
            }
            return Told(step: advise(test), detail: test.remedy.isEmpty ? test.state : test.remedy)
        }
    }

    /// Remove the registration. Without an answer it is kept, so that the next start can try again.
    public func logout() async throws -> Told {
        guard let kept = store.load() else { return Told(step: .nothing) }
        let told = try await repeated {
            try await self.api.delete(kept.identity)
            return nil
        }
        guard told.step == .nothing || told.step.ends else { return told }
        store.erase()
        return Told(step: .nothing)
    }

    /// Seconds that a call waits for its next try at most. If the relay asks for more, as for half an hour after
    /// passwords that were refused, the app gets the answer at once, and says so to the user.
    private static let patience = 30.0

    private func repeated(_ request: () async throws -> Registration?) async throws -> Told {
        var attempt = 0
        while true {
            attempt += 1
            let last = try await asked {
                let registration = try await request()
                return Told(step: registration.map(advise) ?? .nothing, registration: registration)
            }
            if last.step != .repeatLater || attempt == attempts || (last.retryAfter ?? 0) > Self.patience { return last }
            try await pause(wait(attempt: attempt, retryAfter: last.retryAfter, chance: Double.random(in: 0...1)))
        }
    }

    private func asked(_ request: () async throws -> Told) async throws -> Told {
        do {
            return try await request()
        } catch let problem as Problem {
            return told(problem)
        } catch let lost as Unreachable {
            return Told(step: .repeatLater, detail: lost.what)
        }
    }

    private func pause(_ seconds: Double) async throws {
        try await Task.sleep(nanoseconds: UInt64(seconds * 1_000_000_000))
    }

    /// What a refusal asks for; a registration that ended is forgotten.
    private func told(_ problem: Problem) -> Told {
        let step = advise(problem)
        if step.ends { store.erase() }
        let detail = "\(problem.status) \(problem.code): \(problem.detail)"
        return Told(step: step, detail: detail, retryAfter: problem.retryAfter)
    }
}
