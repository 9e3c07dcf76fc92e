"""The WBXML token tables of ActiveSync, as data [MS-ASWBXML 2.1.2.1].

A page has a name and its tags in the order of their tokens, from 0x05 on; "-" is a token that is not assigned. Pages
that the relay never needs are left out; their tags decode to synthetic names.
"""

from functools import cache
from types import MappingProxyType
from typing import Final

FIRST_TOKEN: Final = 0x05  # 0x00-0x04 are global tokens on every page [WBXML 1.3, 7.1]

CODE_PAGES: Final = MappingProxyType(
    {
        0: (
            "AirSync",
            """
        Sync Responses Add Change Delete Fetch SyncKey ClientId ServerId Status Collection Class Version
        CollectionId GetChanges MoreAvailable WindowSize Commands Options FilterType Truncation RtfTruncation
        Conflict Collections ApplicationData DeletesAsMoves NotifyGUID Supported SoftDelete MIMESupport
        MIMETruncation Wait Limit Partial ConversationMode MaxItems HeartbeatInterval
        """,
        ),
        1: (
            "Contacts",
            """
        Anniversary AssistantName AssistantPhoneNumber Birthday Body BodySize BodyTruncated
        Business2PhoneNumber BusinessAddressCity BusinessAddressCountry BusinessAddressPostalCode
        BusinessAddressState BusinessAddressStreet BusinessFaxNumber BusinessPhoneNumber CarPhoneNumber
        Categories Category Children Child CompanyName Department Email1Address Email2Address Email3Address
        FileAs FirstName Home2PhoneNumber HomeAddressCity HomeAddressCountry HomeAddressPostalCode
        HomeAddressState HomeAddressStreet HomeFaxNumber HomePhoneNumber JobTitle LastName MiddleName
        MobilePhoneNumber OfficeLocation OtherAddressCity OtherAddressCountry OtherAddressPostalCode
        OtherAddressState OtherAddressStreet PagerNumber RadioPhoneNumber Spouse Suffix Title WebPage
        YomiCompanyName YomiFirstName YomiLastName CompressedRTF Picture Alias WeightedRank
        """,
        ),
        2: (
            "Email",
            """
        Attachment Attachments AttName AttSize AttOid AttMethod AttRemoved Body BodySize BodyTruncated
        DateReceived DisplayName DisplayTo Importance MessageClass Subject Read To Cc From ReplyTo AllDayEvent
        Categories Category DtStamp EndTime InstanceType BusyStatus Location MeetingRequest Organizer
        RecurrenceId Reminder ResponseRequested Recurrences Recurrence Type Until Occurrences Interval
        DayOfWeek DayOfMonth WeekOfMonth MonthOfYear StartTime Sensitivity TimeZone GlobalObjId ThreadTopic
        MIMEData MIMETruncated MIMESize InternetCPID Flag Status ContentClass FlagType CompleteTime
        DisallowNewTimeProposal
        """,
        ),
        4: (
            "Calendar",
            """
        Timezone AllDayEvent Attendees Attendee Email Name Body BodyTruncated BusyStatus Categories Category
        Rtf DtStamp EndTime Exception Exceptions Deleted ExceptionStartTime Location MeetingStatus
        OrganizerEmail OrganizerName Recurrence Type Until Occurrences Interval DayOfWeek DayOfMonth
        WeekOfMonth MonthOfYear Reminder Sensitivity Subject StartTime UID AttendeeStatus AttendeeType - - - -
        - - - - DisallowNewTimeProposal ResponseRequested AppointmentReplyTime ResponseType CalendarType
        IsLeapMonth FirstDayOfWeek OnlineMeetingConfLink OnlineMeetingExternalLink ClientUid
        """,
        ),
        6: (
            "GetItemEstimate",
            """
        GetItemEstimate Version Collections Collection Class CollectionId DateTime Estimate Response Status
        """,
        ),
        7: (
            "FolderHierarchy",
            """
        Folders Folder DisplayName ServerId ParentId Type Response Status ContentClass Changes Add Delete
        Update SyncKey FolderCreate FolderDelete FolderUpdate FolderSync Count Version
        """,
        ),
        13: (
            "Ping",
            """
        Ping AutdState Status HeartbeatInterval Folders Folder Id Class MaxFolders
        """,
        ),
        14: (
            "Provision",
            """
        Provision Policies Policy PolicyType PolicyKey Data Status RemoteWipe EASProvisionDoc
        DevicePasswordEnabled AlphanumericDevicePasswordRequired RequireStorageCardEncryption
        PasswordRecoveryEnabled DocumentBrowseEnabled AttachmentsEnabled MinDevicePasswordLength
        MaxInactivityTimeDeviceLock MaxDevicePasswordFailedAttempts MaxAttachmentSize
        AllowSimpleDevicePassword DevicePasswordExpiration DevicePasswordHistory AllowStorageCard AllowCamera
        RequireDeviceEncryption AllowUnsignedApplications AllowUnsignedInstallationPackages
        MinDevicePasswordComplexCharacters AllowWiFi AllowTextMessaging AllowPOPIMAPEmail AllowBluetooth
        AllowIrDA RequireManualSyncWhenRoaming AllowDesktopSync MaxCalendarAgeFilter AllowHTMLEmail
        MaxEmailAgeFilter MaxEmailBodyTruncationSize MaxEmailHTMLBodyTruncationSize RequireSignedSMIMEMessages
        RequireEncryptedSMIMEMessages RequireSignedSMIMEAlgorithm RequireEncryptionSMIMEAlgorithm
        AllowSMIMEEncryptionAlgorithmNegotiation AllowSMIMESoftCerts AllowBrowser AllowConsumerEmail
        AllowRemoteDesktop AllowInternetSharing UnapprovedInROMApplicationList ApplicationName
        ApprovedApplicationList Hash AccountOnlyRemoteWipe
        """,
        ),
        17: (
            "AirSyncBase",
            """
        BodyPreference Type TruncationSize AllOrNone - Body Data EstimatedDataSize Truncated Attachments
        Attachment DisplayName FileReference Method ContentId ContentLocation IsInline NativeBodyType
        ContentType Preview BodyPartPreference BodyPart Status Add Delete ClientId Content Location Annotation
        Street City State Country PostalCode Latitude Longitude Accuracy Altitude AltitudeAccuracy LocationUri
        InstanceId
        """,
        ),
        18: (
            "Settings",
            """
        Settings Status Get Set Oof OofState StartTime EndTime OofMessage AppliesToInternal
        AppliesToExternalKnown AppliesToExternalUnknown Enabled ReplyMessage BodyType DevicePassword Password
        DeviceInformation Model IMEI FriendlyName OS OSLanguage PhoneNumber UserInformation EmailAddresses
        SMTPAddress UserAgent EnableOutboundSMS MobileOperator PrimarySmtpAddress Accounts Account AccountId
        AccountName UserDisplayName SendDisabled - RightsManagementInformation
        """,
        ),
        22: (
            "Email2",
            """
        UmCallerID UmUserNotes UmAttDuration UmAttOrder ConversationId ConversationIndex LastVerbExecuted
        LastVerbExecutionTime ReceivedAsBcc Sender CalendarType IsLeapMonth AccountId FirstDayOfWeek
        MeetingMessageType - IsDraft Bcc Send
        """,
        ),
    }
)
"""Code page -> its name and its tags."""

_NAMES: Final = MappingProxyType(
    {
        (page, token): (name, tag)
        for page, (name, tags) in CODE_PAGES.items()
        for token, tag in enumerate(tags.split(), FIRST_TOKEN)
        if tag != "-"
    }
)

TOKENS: Final = MappingProxyType({names: token for token, names in _NAMES.items()})
"""(page name, tag name) -> (code page, token)."""


@cache
def names_of(page: int, token: int) -> tuple[str, str]:
    """Return the page and tag of a token; unknown ones get synthetic names such as "page-5" and "tag-0A"."""
    known = _NAMES.get((page, token))
    if known is not None:
        return known
    name, _ = CODE_PAGES.get(page, (f"page-{page}", ""))
    return name, f"tag-{token:02X}"
