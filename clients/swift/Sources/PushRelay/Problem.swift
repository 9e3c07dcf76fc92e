import Foundation

/// A refusal of the API [RFC 9457]. Decide by `code`; `detail` is for people and logs.
public struct Problem: Error, Equatable, Sendable {
    public let status: Int
    public let code: String
    public let detail: String
    /// The fields that are at fault, as `errors` names them.
    public let fields: [String]
    /// Seconds that the relay asks to wait.
    public let retryAfter: Double?

    /// The problem of an answer. The page of a proxy has no code: `http-502` and the like stand for it.
    public init(status: Int, document: [String: Any]?, retryAfter: String?) {
        self.status = status
        code = document?["code"] as? String ?? "http-\(status)"
        detail = document?["detail"] as? String ?? ""
        fields = (document?["errors"] as? [[String: Any]] ?? []).compactMap { $0["field"] as? String }
        // No app waits longer than a day on the word of one answer.
        self.retryAfter = retryAfter.flatMap { Int($0) }.flatMap { $0 >= 0 ? Double(min($0, 86_400)) : nil }
    }
}

/// No answer, or none that can be read: whether the relay did what was asked is unknown.
public struct Unreachable: Error, Sendable {
    public let what: String
}
