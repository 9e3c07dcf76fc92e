import Foundation

/// What a push says. A push is a hint to sync, never a count to add up.
public enum Push: Equatable, Sendable {
    case newItems(registration: String, cls: String, count: Int, certain: Bool)
    /// The relay had to stop: ask it what to do (`RelayApp.opened`); the reason only chooses the words of a banner.
    /// Not certain: the mail server may be at fault; offer the login only to a user who changed the password.
    case attention(registration: String, certain: Bool, reason: String?)
    case test(registration: String)
    /// The relay asks whether this phone holds the device token: give the nonce back (`RelayApp.received` does).
    case challenge(registration: String, nonce: String)
    /// A kind of a later relay: show nothing of your own; sync, since something may be new.
    case unknown(registration: String, kind: String)

    // region read-push
    /// What a notification says; nil: it is not from the relay.
    public init?(userInfo: [AnyHashable: Any]) {
        guard let part = userInfo["relay"] as? [String: Any],
              let registration = part["registration"] as? String,
              let kind = part["kind"] as? String
        else { return nil }
        let certain = part["certain"] as? Bool ?? true
        switch kind {
        case "new-items":
            let count = max(1, part["count"] as? Int ?? 1)
            self = .newItems(registration: registration, cls: part["class"] as? String ?? "email", count: count, certain: certain)
        case "attention":
            self = .attention(registration: registration, certain: certain, reason: part["reason"] as? String)
        case "test":
            self = .test(registration: registration)
        default:
            let nonce = kind == "challenge" ? part["nonce"] as? String : nil
            self = nonce.map { .challenge(registration: registration, nonce: $0) }
                ?? .unknown(registration: registration, kind: kind)
        }
    }
    // endregion

    public var registration: String {
        switch self {
        case let .newItems(registration, _, _, _), let .attention(registration, _, _), let .test(registration),
             let .challenge(registration, _), let .unknown(registration, _):
            return registration
        }
    }
}
