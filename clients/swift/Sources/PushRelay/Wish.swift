import Foundation

// region devices
/// A phone as the relay reaches it: the bundle id, the device token, and which of Apple's services issued the token.
public struct Device: Equatable, Sendable {
    public let app: String
    public let token: String
    public let environment: ApnsEnvironment

    public init(app: String, token: Data, environment: ApnsEnvironment = .ofThisBuild()) {
        self.app = app
        self.token = token.map { String(format: "%02x", $0) }.joined()
        self.environment = environment
    }

    /// What `PATCH` takes.
    var address: [String: Any] { ["token": token, "environment": environment.rawValue] }

    var whole: [String: Any] { ["platform": "apns", "app": app, "token": token, "environment": environment.rawValue] }
}
// endregion

// region environment
/// Each environment refuses tokens of the other, so the app must say which one its build has.
public enum ApnsEnvironment: String, Sendable {
    case production
    case sandbox

    /// The environment of this build, as its profile says; a build without a profile came from Apple (App Store,
    /// TestFlight) and is production, a simulator is sandbox.
    public static func ofThisBuild(_ bundle: Bundle = .main) -> ApnsEnvironment {
        #if targetEnvironment(simulator)
        return .sandbox
        #else
        guard let url = bundle.url(forResource: "embedded", withExtension: "mobileprovision"),
              let profile = try? Data(contentsOf: url)
        else { return .production }
        return of(profile: profile)
        #endif
    }

    /// The environment that a profile names: a property list inside a signed message.
    static func of(profile: Data) -> ApnsEnvironment {
        guard let start = profile.range(of: Data("<?xml".utf8)),
              let end = profile.range(of: Data("</plist>".utf8), in: start.lowerBound..<profile.endIndex),
              let list = try? PropertyListSerialization.propertyList(
                  from: profile[start.lowerBound..<end.upperBound], options: [], format: nil) as? [String: Any],
              let entitlements = list["Entitlements"] as? [String: Any]
        else { return .production }
        return entitlements["aps-environment"] as? String == "development" ? .sandbox : .production
    }
}
// endregion

/// A credential of the user, as the server of the mailbox takes it.
public enum Credential: Sendable {
    case basic(password: String, user: String? = nil)
    case oauth(refreshToken: String, clientID: String? = nil, user: String? = nil)
    case certificate(pkcs12: Data, passphrase: String? = nil, user: String? = nil)
    case kerberos(invitation: String, user: String? = nil)

    var fields: [String: Any] {
        switch self {
        case let .basic(password, user):
            return filled(["kind": "basic", "user": user, "password": password])
        case let .oauth(refreshToken, clientID, user):
            return filled(["kind": "oauth", "user": user, "refresh_token": refreshToken, "client_id": clientID])
        case let .certificate(pkcs12, passphrase, user):
            let file = pkcs12.base64EncodedString()
            return filled(["kind": "certificate", "user": user, "pkcs12": file, "passphrase": passphrase])
        case let .kerberos(invitation, user):
            return filled(["kind": "kerberos", "user": user, "invitation": invitation])
        }
    }
}

/// A registration as the app asks for it. What is nil is left out: the relay takes its defaults.
public struct Wish: Sendable {
    public var mailbox: String
    public var credential: Credential
    public var device: Device
    public var server: String?
    public var classes: [String]?
    public var subfolders: [String]?
    public var mode: String?
    public var locale: String? = Locale.current.identifier
    public var invitation: String?
    /// The key that an MDM gave to the app; it travels in a header, with this request only.
    public var enrolmentKey: String?

    public init(mailbox: String, credential: Credential, device: Device) {
        self.mailbox = mailbox
        self.credential = credential
        self.device = device
    }

    var body: [String: Any] {
        filled([
            "mailbox": mailbox, "server": server, "credential": credential.fields, "device": device.whole,
            "classes": classes, "subfolders": subfolders, "mode": mode, "locale": locale, "invitation": invitation,
        ])
    }
}

private func filled(_ fields: [String: Any?]) -> [String: Any] { fields.compactMapValues { $0 } }
