import Foundation

// region identity
/// Id and secret of a registration, made by the app **before** its first request and kept from then on: since the app
/// knows both whatever becomes of the answer, a request that is repeated makes no second registration.
public struct Identity: Codable, Equatable, Sendable {
    public let id: String
    public let secret: String

    /// A new identity: 144 random bits name the registration, 256 are the secret, both in base64url.
    public static func make() -> Identity { Identity(id: word(bytes: 18), secret: word(bytes: 32)) }

    private static func word(bytes count: Int) -> String {
        var random = SystemRandomNumberGenerator() // the system's secure source
        let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        return Data(bytes).base64EncodedString()
            .replacingOccurrences(of: "+", with: "-")
            .replacingOccurrences(of: "/", with: "_")
            .replacingOccurrences(of: "=", with: "")
    }
}
// endregion

/// The parts of an answer by which an app decides.
public struct Registration: Equatable, Sendable {
    public let id: String
    public let state: String
    /// Who must act: `nobody`, `app`, `user`, `administrator`.
    public let remedyBy: String
    public let remedy: String
    /// nil: the relay tells nothing about the mailbox until it accepted the credential.
    public let mailboxState: String?
    public let reason: String?
    public let credentialPending: Bool
    /// Apple refuses the device token: most often the environment is wrong.
    public let quarantined: Bool

    public init?(answer: [String: Any]) {
        guard let id = answer["id"] as? String, let state = answer["state"] as? String else { return nil }
        let mailbox = answer["mailbox"] as? [String: Any]
        let told = answer["remedy"] as? [String: Any]
        self.id = id
        self.state = state
        remedyBy = told?["by"] as? String ?? "nobody"
        remedy = told?["text"] as? String ?? ""
        mailboxState = mailbox?["state"] as? String
        reason = mailbox?["reason"] as? String
        credentialPending = (answer["credential"] as? [String: Any])?["pending"] as? Bool ?? false
        quarantined = answer["quarantine"] is [String: Any]
    }
}

/// A test push, and what became of it.
public struct TestResult: Equatable, Sendable {
    public let id: String
    /// `queued`, `delivered`, `refused`, `superseded` or `expired`.
    public let state: String
    /// Apple's code, if it refused the push or has not taken it yet.
    public let reason: String?
    public let remedyBy: String
    public let remedy: String

    public init(answer: [String: Any]) {
        let told = answer["remedy"] as? [String: Any]
        id = answer["id"] as? String ?? ""
        state = answer["state"] as? String ?? "queued"
        reason = answer["reason"] as? String
        remedyBy = told?["by"] as? String ?? "nobody"
        remedy = told?["text"] as? String ?? ""
    }
}
