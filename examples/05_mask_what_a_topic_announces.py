"""Mask each new scene as a provider announces it.

Providers publish new items on a topic (Earth Search: arn:aws:sns:us-west-2:608149789419:cirrus-es-prod-publish).
Subscribe a queue to it, filter by the message attributes (collection, cloud_cover, bbox.ll_lon, ...), and let the queue
call ``handler`` as an AWS Lambda function, in batches of a few items. Bad items raise InvalidInput: send them to a dead
letter queue. Anything else that fails may pass: let the queue deliver it again, as masks that are done stay done.

Run here, without any cloud, it masks a simulated scene: python examples/05_mask_what_a_topic_announces.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.task import CloudMaskTask

OUT = "s3://my-bucket/masks"
"""Where the masks go; with a directory, give a path."""


class Masks(CloudMaskTask):
    """The parameters of `stac-cloudmask process`, for messages that bring none."""

    defaults: ClassVar = {"out": OUT, "missing_scl": "model-only", "mask_only": True}


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:  # noqa: ARG001  (Lambda gives it)
    """Mask the items of an SQS or SNS event; the output items are what the next step of a pipeline takes."""
    return Masks.handler(event)


def main() -> None:
    """Do what the Lambda function does, with a local scene and a local catalog."""
    with tempfile.TemporaryDirectory() as folder:
        Masks.defaults = Masks.defaults | {"out": sys.argv[1] if len(sys.argv) > 1 else f"{folder}/masks"}
        scene = write_simulated_item(Path(folder) / "scenes", Recipe(height=512, width=512))
        for item in handler({"href": str(scene)})["features"]:
            print(
                item["id"], f"{item['properties']['eo:cloud_cover']:.1f} % cloud", item["assets"]["cloud_mask"]["href"]
            )


if __name__ == "__main__":
    main()
