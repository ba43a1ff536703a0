"""The local IAM limits and protects keys as the real one does."""

from datetime import timedelta

import pytest
from support.aws_clients import allow, client_of, new_access_key, new_long_term_key, refused, session_of

BEDROCK = "bedrock.amazonaws.com"


def test_a_user_has_at_most_two_access_keys_inactive_ones_included(world, cloud):
    iam, user = cloud.client("iam"), world.new_user()
    first, *_ = new_access_key(cloud, user)
    new_access_key(cloud, user)
    iam.update_access_key(UserName=user, AccessKeyId=first, Status="Inactive")
    with refused() as refusal:
        new_access_key(cloud, user)
    assert (refusal.code, refusal.status) == ("LimitExceeded", 409)
    iam.delete_access_key(UserName=user, AccessKeyId=first)
    new_access_key(cloud, user)


def test_a_user_has_at_most_two_long_term_keys_whose_secrets_are_shown_once(world, cloud):
    iam, user = cloud.client("iam"), world.new_user()
    made = [new_long_term_key(cloud, user, CredentialAgeDays=90), new_long_term_key(cloud, user)]
    id = made[0]["ServiceSpecificCredentialId"]
    assert id.startswith("ACCA") and made[0]["ServiceCredentialSecret"].startswith("ABSK")
    assert made[0]["ExpirationDate"] - made[0]["CreateDate"] == timedelta(days=90)
    assert "ExpirationDate" not in made[1]
    iam.update_service_specific_credential(UserName=user, ServiceSpecificCredentialId=id, Status="Inactive")
    with refused() as refusal:
        new_long_term_key(cloud, user)
    assert (refusal.code, refusal.status) == ("LimitExceeded", 409)
    page = iam.list_service_specific_credentials(UserName=user, ServiceName=BEDROCK, MaxItems=1)
    assert page["IsTruncated"]
    rest = iam.list_service_specific_credentials(UserName=user, MaxItems=1, Marker=page["Marker"])
    assert not rest["IsTruncated"] and "Marker" not in rest
    listed = page["ServiceSpecificCredentials"] + rest["ServiceSpecificCredentials"]
    assert [key["Status"] for key in listed] == ["Inactive", "Active"]
    for key in made:
        del key["ServiceCredentialSecret"]
    assert listed == [made[0] | {"Status": "Inactive"}, made[1]]


def test_a_new_key_can_be_missing_from_lists_for_a_while_but_not_from_roots(world, cloud):
    iam, user = cloud.client("iam"), world.new_user()
    new_access_key(cloud, user)
    new_long_term_key(cloud, user)
    reader = client_of(cloud, "iam", session_of(cloud, allow("iam:List*")))

    def listed(iam):
        api_keys = iam.list_service_specific_credentials(UserName=user)["ServiceSpecificCredentials"]
        return len(iam.list_access_keys(UserName=user)["AccessKeyMetadata"]), len(api_keys)

    assert listed(reader) == (1, 1)
    cloud.aws.new_keys_unlisted_for = 60
    assert (listed(reader), listed(iam)) == ((0, 0), (1, 1))


@pytest.mark.parametrize(
    ("call", "parameters", "code", "status"),
    [
        ("create", {"ServiceName": "s3.amazonaws.com"}, "NotSupportedService", 404),
        ("create", {"ServiceName": BEDROCK, "UserName": "nobody"}, "NoSuchEntity", 404),
        ("create", {"ServiceName": BEDROCK, "CredentialAgeDays": 36601}, "ValidationError", 400),
        ("update", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16, "Status": "Active"}, "NoSuchEntity", 404),
        ("reset", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16}, "NoSuchEntity", 404),
        ("delete", {"ServiceSpecificCredentialId": "ACCA" + "0" * 16}, "NoSuchEntity", 404),
    ],
)
def test_iam_refuses_what_it_cannot(world, cloud, call, parameters, code, status):
    with refused() as refusal:
        getattr(cloud.client("iam"), f"{call}_service_specific_credential")(
            **{"UserName": world.new_user(), **parameters}
        )
    assert (refusal.code, refusal.status) == (code, status)


def test_another_users_long_term_key_does_not_exist(world, cloud):
    id = new_long_term_key(cloud, world.new_user())["ServiceSpecificCredentialId"]
    with refused() as refusal:
        cloud.client("iam").delete_service_specific_credential(
            UserName=world.new_user(), ServiceSpecificCredentialId=id
        )
    assert refusal.code == "NoSuchEntity" and id in cloud.aws.api_keys


def test_long_term_keys_are_managed_only_with_permission_and_a_valid_signature(world, cloud):
    users = world.new_user(), world.new_user()
    mine = f"arn:aws:iam::000000000000:user/{users[0]}"
    id, secret, token = session_of(
        cloud,
        allow(
            "iam:CreateServiceSpecificCredential",
            resource=mine,
            StringEquals={"iam:ServiceSpecificCredentialServiceName": BEDROCK},
            NumericLessThanEquals={"iam:ServiceSpecificCredentialAgeDays": "90"},
        ),
    )
    iam = client_of(cloud, "iam", (id, secret, token))
    made = iam.create_service_specific_credential(UserName=users[0], ServiceName=BEDROCK, CredentialAgeDays=90)
    key = {"ServiceSpecificCredentialId": made["ServiceSpecificCredential"]["ServiceSpecificCredentialId"]}
    new, named = {"ServiceName": BEDROCK, "CredentialAgeDays": 90}, {"UserName": users[0]}
    for call, parameters in [
        ("create_service_specific_credential", {**new, "UserName": users[1]}),
        ("create_service_specific_credential", {**new, **named, "CredentialAgeDays": 91}),
        ("create_service_specific_credential", {"ServiceName": BEDROCK, **named}),
        ("list_service_specific_credentials", named),
        ("update_service_specific_credential", {**named, **key, "Status": "Inactive"}),
        ("reset_service_specific_credential", {**named, **key}),
        ("delete_service_specific_credential", {**named, **key}),
        ("create_access_key", named),
    ]:
        with refused() as refusal:
            getattr(iam, call)(**parameters)
        assert (refusal.code, refusal.status) == ("AccessDenied", 403), call
    with refused() as refusal:
        forged = client_of(cloud, "iam", (id, "x" * 40, token))
        forged.create_service_specific_credential(UserName=users[0], **new)
    assert refusal.code == "SignatureDoesNotMatch"
    [kept] = cloud.client("iam").list_service_specific_credentials(UserName=users[0])["ServiceSpecificCredentials"]
    assert kept["Status"] == "Active"


def test_a_client_cannot_tell_the_evaluator_what_to_ask(world, cloud):
    """The server in front of ministack removes the two headers that only it may send."""
    conditions = {"StringEquals": {"iam:ServiceSpecificCredentialServiceName": "other"}}
    iam = client_of(cloud, "iam", session_of(cloud, allow("iam:*ServiceSpecific*", **conditions)))

    def forge(request, **_):
        request.headers["x-local-only-authorize"] = "1"
        request.headers["x-local-condition-keys"] = '{"iam:ServiceSpecificCredentialServiceName": "other"}'

    iam.meta.events.register("before-send.iam", forge)
    with refused() as refusal:
        iam.create_service_specific_credential(UserName=world.new_user(), ServiceName=BEDROCK)
    assert refusal.code == "AccessDenied"
