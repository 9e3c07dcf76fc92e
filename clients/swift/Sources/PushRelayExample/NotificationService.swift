#if canImport(UserNotifications) && !os(macOS)
import PushRelayNotifications
import UserNotifications

// region extension-use
/// In the extension's target, as its principal class: mail gets sender and subject, a calendar push keeps its words.
final class NotificationService: RelayNotificationService {
    override func details(of cls: String, in banner: UNMutableNotificationContent) async -> UNNotificationContent? {
        guard cls == "email", let newest = await newestMail() else { return nil }
        banner.title = newest.sender
        banner.body = newest.subject
        return banner
    }

    /// Yours: ask the company's server with the credential of a shared Keychain group, in less than 30 seconds.
    private func newestMail() async -> (sender: String, subject: String)? { nil }
}
// endregion
#endif
