"""One pass over one object: finds its kind, counts, and keeps its failure to itself."""

from __future__ import annotations

import logging
import time

from stoker.api import ApiGateway, ApiKey, InferenceEngine, ModelDeployment
from stoker.cluster.errors import ApiError, ApiUnavailable
from stoker.reconcile.api_gateway import reconcile_api_gateway
from stoker.reconcile.api_key import reconcile_api_key
from stoker.reconcile.context import Context
from stoker.reconcile.inference_engine import reconcile_inference_engine
from stoker.reconcile.invalid import report_invalid
from stoker.reconcile.metrics import DURATION, RECONCILES
from stoker.reconcile.model_deployment import reconcile_model_deployment
from stoker.reconcile.work_queue import WorkKey

logger = logging.getLogger(__name__)


class Worker:
    """Does what the queue hands out."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, key: WorkKey) -> float | None:
        """One pass; says when to look again."""
        started = time.perf_counter()
        result = "error"
        try:
            retry = await self._reconcile(key)
            result = "ok"
        except ApiUnavailable as error:
            result = "unavailable"
            logger.warning("%s %s/%s: %s", *key, error)
            raise
        except ApiError as error:
            logger.warning("%s %s/%s: %s", *key, error)
            raise
        except Exception:
            logger.exception("%s %s/%s could not be reconciled", *key)
            raise
        else:
            return retry
        finally:
            RECONCILES.labels(key.kind, result).inc()
            DURATION.labels(key.kind).observe(time.perf_counter() - started)

    async def _reconcile(self, key: WorkKey) -> float | None:
        own = self._context.cache.own(key.kind, (key.namespace, key.name))
        if own is None:
            self._context.queue.forget(key)
            return None
        if own.metadata.deletion_timestamp is not None:
            # Children go by their owner references, with or without us.
            return None
        resource = own.resource
        if isinstance(resource, ModelDeployment):
            return await reconcile_model_deployment(self._context, own, resource)
        if isinstance(resource, ApiKey):
            return await reconcile_api_key(self._context, own, resource)
        if isinstance(resource, ApiGateway):
            return await reconcile_api_gateway(self._context, own, resource)
        if isinstance(resource, InferenceEngine):
            return await reconcile_inference_engine(self._context, own, resource)
        await report_invalid(self._context, own)
        return None
