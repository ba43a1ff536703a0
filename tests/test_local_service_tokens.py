"""The local Braintrust creates service tokens as the real one does."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def ask_braintrust(server, key, method, path="", body=None):
    url = f"{server.url}/v1/service_token{path}"
    headers = {"authorization": f"Bearer {key}"}
    try:
        with urlopen(Request(url, json.dumps(body).encode() if body else None, headers, method=method)) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, error.read().decode()


def test_a_service_token_makes_others_whose_keys_are_shown_once_and_end_with_them(world):
    server = world.braintrust
    id, key = server.add_service_token("account")
    _, member = server.add_service_token("account", owner=False)
    new = {"name": "rotated", "service_account_id": "account"}
    assert ask_braintrust(server, world.api_key, "POST", body=new)[0] == 403
    assert ask_braintrust(server, member, "POST", body=new)[0] == 403
    assert ask_braintrust(server, key, "POST", body={**new, "service_account_id": "another"})[0] == 400
    assert ask_braintrust(server, key, "POST", body={**new, "org_name": "Another"})[0] == 400
    status, made = ask_braintrust(server, key, "POST", body=new)
    assert status == 200 and made["key"].startswith("bt-st-")
    _, listed = ask_braintrust(server, made["key"], "GET")
    shown = {k: v for k, v in made.items() if k != "key"}
    assert shown in listed["objects"] and made["key"] not in json.dumps(listed)
    assert ask_braintrust(server, key, "GET", f"/{made['id']}") == (200, shown)
    assert ask_braintrust(server, made["key"], "DELETE", f"/{id}")[0] == 200
    assert ask_braintrust(server, key, "GET")[0] == 401
    assert ask_braintrust(server, made["key"], "GET", f"/{id}")[0] == 404
