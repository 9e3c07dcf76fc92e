// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "PushRelay",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [
        .library(name: "PushRelay", targets: ["PushRelay"]),
        .library(name: "PushRelayNotifications", targets: ["PushRelayNotifications"]),
    ],
    targets: [
        .target(name: "PushRelay"),
        .target(name: "PushRelayNotifications", dependencies: ["PushRelay"]),
        .target(name: "PushRelayExample", dependencies: ["PushRelay", "PushRelayNotifications"]),
        .testTarget(name: "PushRelayTests", dependencies: ["PushRelay"]),
    ]
)
