#if canImport(UserNotifications) && !os(macOS)
import Foundation
import PushRelay
import UserNotifications

// region extension
/// The base of an app's notification service extension. Override `details`; everything else keeps the promise of iOS:
/// the banner is handed over exactly once, at the latest when iOS says that the time is over (about 30 seconds).
open class RelayNotificationService: UNNotificationServiceExtension {
    private let lock = NSLock() // iOS may say that the time is over while `details` returns
    private var deliver: ((UNNotificationContent) -> Void)?
    private var fixed: UNNotificationContent?
    private var task: Task<Void, Never>?

    /// Return the banner with details from the company's own server, or nil to keep the fixed words. Called only for
    /// new items of a class; title and body of other kinds say what is to be said.
    open func details(of cls: String, in banner: UNMutableNotificationContent) async -> UNNotificationContent? { nil }

    override public func didReceive(
        _ request: UNNotificationRequest, withContentHandler handler: @escaping (UNNotificationContent) -> Void
    ) {
        fixed = request.content
        deliver = handler
        guard case let .newItems(_, cls, _, _)? = Push(userInfo: request.content.userInfo),
              let banner = request.content.mutableCopy() as? UNMutableNotificationContent
        else { return finish(request.content) }
        task = Task {
            let found = await self.details(of: cls, in: banner)
            if !Task.isCancelled { self.finish(found ?? request.content) }
        }
    }

    override public func serviceExtensionTimeWillExpire() {
        task?.cancel()
        if let fixed { finish(fixed) }
    }

    private func finish(_ content: UNNotificationContent) {
        lock.lock()
        let once = deliver
        deliver = nil
        lock.unlock()
        once?(content)
    }
}
// endregion

#endif
