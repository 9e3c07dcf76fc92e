import Foundation

/// What an app does next.
public enum Step: Equatable, Sendable {
    case nothing
    /// Look again later; the relay goes on by itself.
    case wait
    /// The same request again, after `Retry-After` or a growing wait.
    case repeatLater
    /// Never repeat a refused password by yourself: the account could be locked.
    case askUser
    case sendToken
    case tellAdministrator
    /// The registration ended for a reason that is nobody's fault: register, if the user is still logged in.
    case registerAgain
    /// There is no registration, or none any more: register when the user asks for it.
    case notRegistered
    /// An administrator wiped this phone: remove the company's data, and do not register again by yourself.
    case wipe
    case correctApp

    /// Whether the registration ended, so that id and secret are of no more use.
    var ends: Bool { self == .registerAgain || self == .notRegistered || self == .wipe }
}

// region advise
/// What to do about a registration that the relay shows.
public func advise(_ registration: Registration) -> Step {
    if registration.state == "wiped" || ["wiped", "wiping"].contains(registration.mailboxState ?? "") { return .wipe }
    if registration.state == "token-gone" || registration.quarantined { return .sendToken }
    if registration.state == "proving" { return .wait } // for the challenge push
    switch registration.remedyBy {
    case "user": return .askUser
    case "administrator": return .tellAdministrator
    case "app": return .sendToken
    default: return registration.state == "active" && !registration.credentialPending ? .nothing : .wait
    }
}

/// What to do about a refusal. Codes that are not named go by their status: the relay may learn new ones.
public func advise(_ problem: Problem) -> Step {
    switch problem.code {
    case "not-authorized", "replaced": return .notRegistered
    case "wiped": return .wipe
    case "gone": return .registerAgain
    case "credential-refused", "unsupported-credential": return .askUser
    case "mailbox-full", "mailbox-wiped", "enrolment-refused", "unknown-server", "unknown-app": return .tellAdministrator
    case "not-active", "wrong-proof": return .wait
    case "broken-body", "too-slow": return .repeatLater
    default: break
    }
    switch problem.status {
    case 410: return .notRegistered
    case 408, 425, 429, 500, 502, 503, 504: return .repeatLater
    default: return .correctApp
    }
}
// endregion

/// What to do about a test push.
public func advise(_ test: TestResult) -> Step {
    switch (test.state, test.remedyBy) {
    case ("queued", _): return .wait
    case ("refused", "app"): return .sendToken
    case ("refused", _): return .tellAdministrator
    default: return .nothing
    }
}

/// Seconds before repetition `attempt` (from 1): doubled each time up to an hour, spread by `chance` (0 to 1), so that
/// the phones of a company do not come back in the same second. A time that the relay named is never shortened.
public func wait(attempt: Int, retryAfter: Double?, chance: Double) -> Double {
    if let retryAfter { return retryAfter * (1 + 0.1 * chance) }
    return min(2 * pow(2, Double(attempt - 1)), 3600) * (0.5 + 0.5 * chance)
}
