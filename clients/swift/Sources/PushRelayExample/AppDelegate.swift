#if canImport(UIKit) && !os(watchOS)
import PushRelay
import UIKit
import UserNotifications

/// The app's side in one place; `Mail` and the screens are yours.
final class AppDelegate: NSObject, UIApplicationDelegate, UNUserNotificationCenterDelegate {
    // region managed
    /// What the MDM sets: AppConfig gives it to the app as a dictionary. Read it at each start; it can change.
    static func managed(_ key: String) -> String? {
        let configuration = UserDefaults.standard.dictionary(forKey: "com.apple.configuration.managed")
        return configuration?[key] as? String
    }
    // endregion

    // region client
    /// One client for each mailbox. The extension asks the mail server only, so this secret needs no shared group.
    static let relay = RelayApp(
        api: RelayAPI(base: URL(string: managed("relay_url") ?? "https://relay.example.com:8443")!),
        store: KeychainStore(account: "ann@example.com", group: nil)
    )
    // endregion

    private var device: Device?

    // region token
    func application(
        _ application: UIApplication, didFinishLaunchingWithOptions options: [UIApplication.LaunchOptionsKey: Any]?
    ) -> Bool {
        UNUserNotificationCenter.current().delegate = self // before the app has started: see `willPresent`
        NotificationCenter.default.addObserver(
            self, selector: #selector(cameToFront), name: UIApplication.willEnterForegroundNotification, object: nil)
        application.registerForRemoteNotifications() // at each start: it needs no permission, and the token can change
        return true
    }

    func application(_ application: UIApplication, didRegisterForRemoteNotificationsWithDeviceToken token: Data) {
        let now = Device(app: Bundle.main.bundleIdentifier ?? "", token: token)
        device = now
        Task { await act(await Self.look(now)) }
    }

    func application(_ application: UIApplication, didFailToRegisterForRemoteNotificationsWithError error: Error) {
        // No capability, no network, or the simulator of an old Xcode: the next start tries again.
    }

    /// The notification comes to each app; `applicationWillEnterForeground` not to one with scenes, as SwiftUI's are.
    @objc func cameToFront() {
        guard let device else { return }
        Task { await act(await Self.look(device)) }
    }

    static func look(_ device: Device) async -> Told {
        guard await relay.identity != nil else { return Told(step: .nothing) } // not logged in
        return (try? await relay.opened(device)) ?? Told(step: .repeatLater)
    }
    // endregion

    // region permission
    /// Ask when the user switches notifications on, not at the first start: iOS shows its question once.
    func askToNotify() async -> Bool {
        let center = UNUserNotificationCenter.current()
        return (try? await center.requestAuthorization(options: [.alert, .sound, .badge])) ?? false
    }
    // endregion

    // region register
    /// After the user gave the password. `nil` in a wish takes the default of the relay.
    func logIn(password: String) async throws -> Told {
        guard let device else { return Told(step: .wait) } // no token yet
        var wish = Wish(mailbox: "ann@example.com", credential: .basic(password: password), device: device)
        wish.classes = ["email", "calendar"]
        wish.invitation = Self.managed("invitation")
        wish.enrolmentKey = Self.managed("enrolment_key")
        return try await Self.relay.register(wish)
    }
    // endregion

    // region received
    /// Pushes in the background (`content-available`). iOS gives 30 seconds.
    func application(
        _ application: UIApplication, didReceiveRemoteNotification userInfo: [AnyHashable: Any]
    ) async -> UIBackgroundFetchResult {
        await take(userInfo)
    }

    /// Alerts while the app is in front: without this method iOS shows none of them, not even a test push.
    func userNotificationCenter(
        _ center: UNUserNotificationCenter, willPresent notification: UNNotification,
        withCompletionHandler show: @escaping (UNNotificationPresentationOptions) -> Void
    ) {
        show([.banner, .list, .sound])
        let userInfo = notification.request.content.userInfo
        Task { _ = await take(userInfo) }
    }

    private func take(_ userInfo: [AnyHashable: Any]) async -> UIBackgroundFetchResult {
        switch await Self.relay.received(userInfo) {
        case nil, .test?, .challenge?:
            return .noData
        case .attention?:
            if let device { await act(await Self.look(device)) }
            return .noData
        case .newItems?, .unknown?:
            return await Mail.sync() ? .newData : .failed // all classes: a push may stand for others that it replaced
        }
    }
    // endregion

    // region act
    /// What the app does next; the relay's words for the user are in `told.registration?.remedy`.
    @MainActor func act(_ told: Told) {
        switch told.step {
        case .askUser: Mail.showLogin()
        case .wipe: Mail.removeEverything() // and do not register again until the user asks for it
        case .sendToken: UIApplication.shared.registerForRemoteNotifications()
        case .tellAdministrator: Mail.show(told.registration?.remedy ?? told.detail)
        case .registerAgain: Mail.registerWithStoredPassword()
        case .nothing, .wait, .repeatLater, .notRegistered, .correctApp: break
        }
    }
    // endregion
}

/// Yours: the app itself.
enum Mail {
    static func sync() async -> Bool { true }
    static func showLogin() {}
    static func removeEverything() {}
    static func registerWithStoredPassword() {}
    static func show(_ words: String) { print(words) }
}
#endif
