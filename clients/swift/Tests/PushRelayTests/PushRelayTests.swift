@testable import PushRelay
import XCTest

final class PushRelayTests: XCTestCase {
    func testEveryKindOfPushIsRead() {
        func read(_ part: [String: Any]) -> Push? { Push(userInfo: ["relay": part.merging(["registration": "r"]) { $1 }]) }

        XCTAssertEqual(
            read(["kind": "new-items", "class": "calendar", "count": 3]),
            .newItems(registration: "r", cls: "calendar", count: 3, certain: true))
        XCTAssertEqual(
            read(["kind": "attention", "certain": false, "reason": "credential"]),
            .attention(registration: "r", certain: false, reason: "credential"))
        XCTAssertEqual(read(["kind": "test"]), .test(registration: "r"))
        XCTAssertEqual(read(["kind": "challenge", "nonce": "n"]), .challenge(registration: "r", nonce: "n"))
        XCTAssertEqual(read(["kind": "challenge"]), .unknown(registration: "r", kind: "challenge"))
        XCTAssertNil(Push(userInfo: ["aps": ["alert": "other"]]))
    }

    func testTheProfileSaysWhichEnvironmentABuildHas() {
        func profile(_ name: String) -> Data {
            let list = """
            <?xml version="1.0" encoding="UTF-8"?>
            <plist version="1.0"><dict><key>Entitlements</key><dict>
            <key>aps-environment</key><string>\(name)</string></dict></dict></plist>
            """
            return Data([0x30, 0x82]) + Data(list.utf8) + Data([0xA0])
        }

        XCTAssertEqual(ApnsEnvironment.of(profile: profile("development")), .sandbox)
        XCTAssertEqual(ApnsEnvironment.of(profile: profile("production")), .production)
        XCTAssertEqual(ApnsEnvironment.of(profile: Data()), .production)
    }

    func testARefusalSaysWhatTheAppDoes() {
        func step(_ status: Int, _ code: String) -> Step {
            advise(Problem(status: status, document: ["code": code], retryAfter: "7"))
        }

        XCTAssertEqual(step(401, "not-authorized"), .notRegistered)
        XCTAssertEqual(step(410, "gone"), .registerAgain)
        XCTAssertEqual(step(410, "wiped"), .wipe)
        XCTAssertEqual(step(403, "credential-refused"), .askUser)
        XCTAssertEqual(step(429, "too-many-requests"), .repeatLater)
        XCTAssertEqual(step(400, "invalid-request"), .correctApp)
        XCTAssertEqual(Problem(status: 502, document: nil, retryAfter: "soon").code, "http-502")
    }

    func testATestPushSaysWhatTheAppDoes() {
        func step(_ state: String, _ by: String) -> Step {
            advise(TestResult(answer: ["id": "t", "state": state, "remedy": ["by": by]]))
        }

        XCTAssertEqual(step("queued", "nobody"), .wait)
        XCTAssertEqual(step("delivered", "nobody"), .nothing)
        XCTAssertEqual(step("refused", "app"), .sendToken)
        XCTAssertEqual(step("refused", "administrator"), .tellAdministrator)
    }

    func testATokenIsLowerCaseHexadecimal() {
        let device = Device(app: "com.example.mail", token: Data([0x0A, 0xFF]), environment: .sandbox)

        XCTAssertEqual(device.address as? [String: String], ["token": "0aff", "environment": "sandbox"])
    }

    func testAnIdentityIsRandomAndLong() {
        let identity = Identity.make()

        XCTAssertEqual(identity.id.count, 24)
        XCTAssertEqual(identity.secret.count, 43)
        XCTAssertNotEqual(identity, Identity.make())
    }
}
