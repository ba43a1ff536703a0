"""What ministack lacks of Step Functions' Distributed Map: batches, runs that stop when too many batches have failed,
batches that stop with their run, redrives, and the selection of items with JSONata.

This runs in ministack's own Python environment.
"""

import contextvars
import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import ministack_state_machine_roles as roles
from ministack.core.responses import error_response_json, json_response, new_uuid, now_iso
from ministack.services import stepfunctions

_COUNTS = ("pending", "running", "succeeded", "failed", "timedOut", "aborted", "total", "resultsWritten")
_COUNTS += ("failuresNotRedrivable", "pendingRedrive")
_REDRIVABLE = ("FAILED", "TIMED_OUT", "ABORTED")
_handle = stepfunctions.handle_request
_stop = stepfunctions._stop_execution
_fail = stepfunctions._fail_execution


def install():
    stepfunctions._run_distributed_map = _run_distributed_map
    stepfunctions._fail_execution = _fail_unless_stopped
    stepfunctions._stop_execution = _stop_with_batches


async def handle_request(method, path, headers, body, query_params):
    if headers.get("x-amz-target", "").endswith(".RedriveExecution"):
        return stepfunctions._finalize_response(_redrive(json.loads(body)))
    return await _handle(method, path, headers, body, query_params)


def _run_distributed_map(state, raw_input, effective, iterator, execution, ctx):
    run = _MapRun.of(state, raw_input, effective, iterator, execution, ctx)
    results = run.carry_out()
    if execution["status"] != "RUNNING":
        raise stepfunctions._ExecutionError("States.Runtime", "The execution was stopped")
    output = stepfunctions._apply_jsonata_output(state, raw_input, ctx, result=results, default=results)
    return output, stepfunctions._next_or_end(state)


class _MapRun:
    """A run of a Map state. `view` is what DescribeMapRun shows, and `batches` are its child executions."""

    _runs = {}

    @classmethod
    def of(cls, state, raw_input, effective, iterator, execution, ctx):
        """A new run, or the one that the execution's redrive continues."""
        run = cls._runs.get(execution["executionArn"])
        if run is None:
            roles.require(ctx, "states:StartExecution", execution["stateMachineArn"])
            run = cls._runs[execution["executionArn"]] = cls(state, raw_input, effective, execution, ctx)
        else:
            run.redrive(ctx)
        run.iterator, run.ctx = iterator, ctx
        return run

    @classmethod
    def stop(cls, execution_arn):
        if run := cls._runs.get(execution_arn):
            run._abort("ABORTED")

    def __init__(self, state, raw_input, effective, execution, ctx):
        self._state, self._lock, self._stopped = state, threading.Lock(), threading.Event()
        prefix, _, name = execution["stateMachineArn"].rpartition(":stateMachine:")
        label = f"{name}/{state['Label']}"
        self._tolerated = float(state.get("ToleratedFailurePercentage") or 0)
        self._child = {"machine": f"{prefix}:stateMachine:{label}", "execution": f"{prefix}:execution:{label}"}
        self.view = {
            "mapRunArn": f"{prefix}:mapRun:{label}:{new_uuid()}",
            "executionArn": execution["executionArn"],
            "status": "RUNNING",
            "startDate": now_iso(),
            "maxConcurrency": int(state.get("MaxConcurrency") or 0),
            "toleratedFailurePercentage": self._tolerated,
            "toleratedFailureCount": 0,
            "itemCounts": dict.fromkeys(_COUNTS, 0),
            "executionCounts": dict.fromkeys(_COUNTS, 0),
            "redriveCount": 0,
            "_stateMachineArn": self._child["machine"],
        }
        stepfunctions._map_runs[self.view["mapRunArn"]] = self.view
        items = self._items(raw_input, effective, ctx)
        size = (state.get("ItemBatcher") or {}).get("MaxItemsPerBatch") or len(items)
        self.batches = [self._new_batch(items[first : first + size]) for first in range(0, len(items), size)]
        self._count()

    def _items(self, raw_input, effective, ctx):
        found = stepfunctions._read_map_items(self._state["ItemReader"], effective, ctx)
        items = []
        for index, value in enumerate(found):
            of_item = {**ctx, "Map": {"Item": {"Index": index, "Value": value}}}
            selector = self._state.get("ItemSelector")
            items.append(stepfunctions._apply_jsonata_template(selector, raw_input, of_item) if selector else value)
        return items

    def _new_batch(self, items):
        name = new_uuid()
        return {
            "executionArn": f"{self._child['execution']}:{name}",
            "stateMachineArn": self._child["machine"],
            "name": name,
            "status": "PENDING",
            "startDate": None,
            "stopDate": None,
            "input": json.dumps({"Items": items}),
            "output": None,
            "mapRunArn": self.view["mapRunArn"],
            "events": [],
            "testCase": "",
            "mockAttempts": {},
        }

    def redrive(self, ctx):
        roles.require(ctx, "states:RedriveExecution", self.batches[0]["executionArn"])
        self._stopped.clear()
        for batch in self.batches:
            if batch["status"] in _REDRIVABLE:
                batch.update(status="PENDING", stopDate=None)
        self.view.update(status="RUNNING", redriveCount=self.view["redriveCount"] + 1, redriveDate=now_iso())
        self.view.pop("stopDate", None)
        self._count()

    def carry_out(self):
        """The outputs of the batches that succeeded. Doesn't wait for those that were stopped."""
        waiting = [batch for batch in self.batches if batch["status"] == "PENDING"]
        done = threading.Semaphore(0)
        pool = ThreadPoolExecutor(max_workers=self.view["maxConcurrency"] or 64)

        def run(batch):
            try:
                self._run(batch)
            finally:
                done.release()

        for batch in waiting:
            pool.submit(contextvars.copy_context().run, run, batch)
        for _ in waiting:
            while not done.acquire(timeout=0.05):
                if self._stopped.is_set():
                    break
        pool.shutdown(wait=False, cancel_futures=True)
        if self.view["status"] == "FAILED":
            raise stepfunctions._ExecutionError(
                "States.ExceedToleratedFailureThreshold", "The specified tolerated failure threshold was exceeded"
            )
        if self.view["status"] == "RUNNING":
            self.view.update(status="SUCCEEDED", stopDate=now_iso())
        return [json.loads(batch["output"]) for batch in self.batches if batch["status"] == "SUCCEEDED"]

    def _run(self, batch):
        attempt = new_uuid()
        with self._lock:
            if self._stopped.is_set():
                return
            batch.update(status="RUNNING", startDate=batch["startDate"] or now_iso(), attempt=attempt)
            stepfunctions._executions[batch["executionArn"]] = batch
        self._count()
        try:
            output = stepfunctions._run_sub_machine(
                self.iterator["States"], self.iterator["StartAt"], json.loads(batch["input"]), batch,
                copy.deepcopy(self.ctx),
            )  # fmt: skip
            end = {"status": "SUCCEEDED", "output": json.dumps(output)}
        except stepfunctions._ExecutionError as error:
            end = {"status": "FAILED", "error": error.error, "cause": error.cause}
        with self._lock:
            # The invocation of a batch that was stopped continues, but its result is dropped.
            if batch["status"] != "RUNNING" or batch["attempt"] != attempt:
                return
            batch.update(end, stopDate=now_iso())
        self._count()
        items = self.view["itemCounts"]
        if items["failed"] * 100 > self._tolerated * items["total"]:
            self._abort("FAILED")

    def _abort(self, status):
        with self._lock:
            if self.view["status"] != "RUNNING":
                return
            self.view.update(status=status, stopDate=now_iso())
            for batch in self.batches:
                if batch["status"] == "RUNNING":
                    batch.update(status="ABORTED", stopDate=now_iso())
            self._stopped.set()
        self._count()

    def _count(self):
        with self._lock:
            for counts, of in (("executionCounts", lambda batch: 1), ("itemCounts", _size)):
                found = dict.fromkeys(_COUNTS, 0)
                for batch in self.batches:
                    found[batch["status"].lower()] += of(batch)
                    found["total"] += of(batch)
                self.view[counts].update(found)


def _size(batch):
    return len(json.loads(batch["input"])["Items"])


def _fail_unless_stopped(execution, error, cause):
    if execution["status"] == "RUNNING":
        _fail(execution, error, cause)


def _stop_with_batches(data):
    answer = _stop(data)
    if answer[0] == 200:
        _MapRun.stop(data["executionArn"])
    return answer


def _redrive(data):
    execution = stepfunctions._executions.get(data.get("executionArn"))
    if execution is None:
        return error_response_json("ExecutionDoesNotExist", f"Execution {data.get('executionArn')} not found", 400)
    if execution["status"] not in _REDRIVABLE:
        return error_response_json("ExecutionNotRedrivable", f"Execution is {execution['status']}", 400)
    execution.update(status="RUNNING", stopDate=None, redriveDate=now_iso())
    for field in ("error", "cause", "output"):
        execution[field] = None
    threading.Thread(target=contextvars.copy_context().run, args=(_continue, execution), daemon=True).start()
    return json_response({"redriveDate": execution["redriveDate"]})


def _continue(execution):
    """Runs the state machine from the state that the execution entered last."""
    machine = stepfunctions._state_machines[execution["stateMachineArn"]]
    definition = json.loads(machine["definition"])
    entered = [event["stateEnteredEventDetails"] for event in execution["events"] if "stateEnteredEventDetails" in event]
    entered = [state for state in entered if state["name"] in definition["States"]]
    ctx = {
        "QueryLanguage": definition["QueryLanguage"],
        "Execution": {
            "Id": execution["executionArn"],
            "Input": json.loads(execution["input"]),
            "Name": execution["name"],
            "StartTime": execution["startDate"],
        },
        "StateMachine": {"Id": machine["stateMachineArn"], "Name": machine["name"]},
        "variables": {},
    }
    try:
        output = stepfunctions._run_sub_machine(
            definition["States"], entered[-1]["name"], json.loads(entered[-1]["input"]), execution, ctx
        )
    except stepfunctions._ExecutionError as error:
        _fail_unless_stopped(execution, error.error, error.cause)
        return
    if execution["status"] == "RUNNING":
        execution.update(status="SUCCEEDED", output=json.dumps(output), stopDate=now_iso())
