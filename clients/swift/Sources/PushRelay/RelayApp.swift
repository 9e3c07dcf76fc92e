import Foundation

/// What the app does next, and the registration if the relay showed it.
public struct Told: Sendable {
    public let step: Step
    public var registration: Registration?
    /// For logs and an administrator, in English.
    public var detail = ""
    /// With `repeatLater`: seconds that the relay asks to wait before a later try.
    public var retryAfter: Double?
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

    /// Register, after the user gave a credential.
    public func register(_ wish: Wish) async throws -> Told {
        do {
            let (registration, identity) = try await api.post(wish)
            try store.save(Kept(identity: identity, token: wish.device.token))
            return Told(step: advise(registration), registration: registration)
        } catch let problem as Problem {
            return told(problem)
        } catch let lost as Unreachable {
            return Told(step: .repeatLater, detail: lost.what)
        }
    }

    // region opened
    /// Look at the registration: at each start, when the app comes to the foreground, after `attention`. `device` is
    /// what the system gives the app now; a changed token is sent first.
    public func opened(_ device: Device) async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        if device.token != kept.token { return try await tokenChanged(device) }
        return try await repeated { try await self.api.get(kept.identity) }
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

    /// What a push says; nil: it is not for this registration, so do nothing.
    public func received(_ userInfo: [AnyHashable: Any]) -> Push? {
        guard let push = Push(userInfo: userInfo), push.registration == identity?.id else { return nil }
        return push
    }

    /// Ask for a test push. It is not repeated: a lost answer may stand for a push that is on its way.
    public func testPush() async throws -> Told {
        guard let kept = store.load() else { return Told(step: .notRegistered) }
        do {
            _ = try await api.testPush(kept.identity)
            return Told(step: .nothing)
        } catch let problem as Problem {
            return told(problem)
        } catch let lost as Unreachable {
            return Told(step: .repeatLater, detail: lost.what)
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

    private func repeated(_ request: () async throws -> Registration?) async throws -> Told {
        var attempt = 0
        while true {
            attempt += 1
            var last: Told
            do {
                let registration = try await request()
                return Told(step: registration.map(advise) ?? .nothing, registration: registration)
            } catch let problem as Problem {
                last = told(problem)
            } catch let lost as Unreachable {
                last = Told(step: .repeatLater, detail: lost.what)
            }
            if last.step != .repeatLater || attempt == attempts { return last }
            let seconds = wait(attempt: attempt, retryAfter: last.retryAfter, chance: Double.random(in: 0...1))
            try await Task.sleep(nanoseconds: UInt64(seconds * 1_000_000_000))
        }
    }

    /// What a refusal asks for; a registration that ended is forgotten.
    private func told(_ problem: Problem) -> Told {
        let step = advise(problem)
        if step.ends { store.erase() }
        let detail = "\(problem.status) \(problem.code): \(problem.detail)"
        return Told(step: step, detail: detail, retryAfter: problem.retryAfter)
    }
}
