import Foundation
import Security

/// What an app keeps between its starts.
public struct Kept: Codable, Equatable, Sendable {
    public let identity: Identity
    /// The token as the relay last took it: a start sends nothing unless it changed.
    public var token: String
}

/// Where an app keeps what it must not lose and must not show.
public protocol Store: Sendable {
    func load() -> Kept?
    /// Keep it, in place of what was kept before, before this returns.
    func save(_ kept: Kept) throws
    func erase()
}

// region keychain
/// The Keychain, on this device only: neither a backup nor a transfer takes the item to another phone, where two phones
/// would have one secret. It can be read after the first unlock, so that a push at night finds it.
public struct KeychainStore: Store {
    /// An access group that app and notification service extension share, e.g. `TEAMID.com.example.mail.shared`.
    let group: String?
    let account: String

    public init(account: String, group: String?) {
        self.account = account
        self.group = group
    }

    public func load() -> Kept? {
        var query = item
        query[kSecReturnData] = true
        var found: CFTypeRef?
        guard SecItemCopyMatching(query as CFDictionary, &found) == errSecSuccess, let data = found as? Data
        else { return nil }
        return try? JSONDecoder().decode(Kept.self, from: data)
    }

    public func save(_ kept: Kept) throws {
        let values: [CFString: Any] = [
            kSecValueData: try JSONEncoder().encode(kept),
            kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly,
        ]
        var status = SecItemUpdate(item as CFDictionary, values as CFDictionary)
        if status == errSecItemNotFound {
            status = SecItemAdd(item.merging(values) { $1 } as CFDictionary, nil)
        }
        guard status == errSecSuccess else { throw KeychainError(status: status) }
    }

    public func erase() { SecItemDelete(item as CFDictionary) }

    private var item: [CFString: Any] {
        var item: [CFString: Any] = [
            kSecClass: kSecClassGenericPassword, kSecAttrService: "push-relay", kSecAttrAccount: account,
            kSecAttrSynchronizable: false,
        ]
        if let group { item[kSecAttrAccessGroup] = group }
        return item
    }
}
// endregion

public struct KeychainError: Error, Sendable {
    public let status: OSStatus
}
