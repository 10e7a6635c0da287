"""`GET /v1/workloads/{id}/proof`: one workload's sealed day as a document that anyone can check offline.

What is in it stands in engine/core/proofs.py, byte by byte in docs/proofs.md.
"""

from __future__ import annotations

from quart import Response, request

from engine.core.merkle import BLOCK_LEAVES
from engine.core.people import Principal
from engine.core.proofs import HourProof, ProofDocument, TreePart, hour_proof_of, proof_of
from engine.core.sealed import DAY_TREE, HOURS, Seal
from web import sight
from web.backend import Backend
from web.problems import RefusedError
from web.routing import Answer, Parameter, Route, integer_parameter, reply_polled
from web.sealed_day import DAY, REVISION, asked_seal


async def get_proof(backend: Backend, caller: Principal, *, workload_id: str) -> Response:
    workload = await sight.workload(backend, caller, workload_id)
    hour = integer_parameter("hour", default=0, least=0, most=HOURS - 1)
    seal = await asked_seal(backend, workload.project_id)
    found = await backend.stores.seals.row(seal, workload.workload_id)
    if found is None:
        raise RefusedError(404, "not_in_seal", f"the workload did not live on {seal.day}")
    place, row = found
    told = None
    if "hour" in request.args:
        told = await _hour_proof(backend, seal, hour, row.node_id, workload.workload_id)
    tree = await _tree_part(backend, seal, DAY_TREE, place)
    return reply_polled(proof_of(seal, row, tree, hour=told))


async def _hour_proof(backend: Backend, seal: Seal, hour: int, node_id: str, workload_id: str) -> HourProof:
    leaf = await backend.stores.seals.hour_leaf(seal, hour, node_id)
    assert leaf is not None, "a sealed row's node has a leaf in each hour"
    place, content = leaf
    return hour_proof_of(seal, hour, workload_id, content, await _tree_part(backend, seal, hour, place))


async def _tree_part(backend: Backend, seal: Seal, tree: int, place: int) -> TreePart:
    block = await backend.stores.seals.block(seal, tree, place // BLOCK_LEAVES)
    return TreePart(place, block, await backend.stores.seals.block_roots(seal, tree))


ROUTES = (
    Route(
        method="GET",
        path="/v1/workloads/{workload_id}/proof",
        handler=get_proof,
        summary="Proof of a workload's sealed day, to be checked offline (docs/proofs.md)",
        tag="proofs",
        parameters=(
            DAY,
            REVISION,
            Parameter(
                name="hour",
                description="Prove this hour of the day (UTC) as well",
                schema={"type": "integer", "minimum": 0, "maximum": HOURS - 1},
            ),
        ),
        answers={200: Answer(description="The proof", type=ProofDocument)},
        refusals=(400, 404),
    ),
)
