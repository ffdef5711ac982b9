"""Examples for the API's description."""

from typing import Any

IMG2IMG = {
    "steps": [
        {
            "kind": "img2img",
            "model": "demo",
            "prompt": "a watercolor of a fox",
            "image": "https://upload.example/fox.png",
            "strength": 0.6,
            "guidance_scale": 7.5,
        }
    ],
    "labels": {"set": "train"},
}
TEXT2IMG = {"steps": [{"kind": "text2img", "model": "demo", "prompt": "a red circle", "seed": 7}]}
CHAIN = {
    "steps": [
        {"kind": "text2img", "model": "demo", "prompt": "a red circle"},
        {"kind": "img2img", "model": "demo", "prompt": "a blue circle", "strength": 0.5},
    ],
    "keep_steps": True,
}

#: The body of `POST /v1/jobs`.
SUBMISSION: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/Spec"},
            "examples": {
                "img2img": {"summary": "A picture from a picture", "value": IMG2IMG},
                "text2img": {"summary": "A picture from a prompt", "value": TEXT2IMG},
                "chain": {"summary": "Two steps", "value": CHAIN},
            },
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["spec"],
                "additionalProperties": False,
                "properties": {
                    "spec": {
                        "type": "string",
                        "description": "A spec as JSON; its first step names no image.",
                    },
                    "image": {
                        "type": "string",
                        "format": "binary",
                        "description": "The picture that the first step begins from.",
                    },
                },
            },
            "encoding": {"spec": {"contentType": "application/json"}},
        },
    },
}

_RECIPE = {"model": "demo", "prompt": "{prompt}, comic style", "strength": 0.6}
_AROUND = {
    "recipe": {"type": "object", "description": "As in docs/datasets.md, in JSON."},
    "name": {"type": "string", "minLength": 1, "maxLength": 200},
    "pilot": {
        "type": "integer",
        "minimum": 0,
        "maximum": 1000,
        "description": "Rows that run first; the others wait for a release.",
    },
}

#: The body of `POST /v1/batches`.
DATASET: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["source", "recipe"],
                "additionalProperties": False,
                "properties": {
                    "source": {"type": "string", "pattern": "^s3://", "maxLength": 2048},
                    **_AROUND,
                },
            },
            "example": {"source": "s3://photos/incoming/", "recipe": _RECIPE},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["source", "recipe"],
                "additionalProperties": False,
                "properties": {
                    "source": {
                        "type": "string",
                        "format": "binary",
                        "description": "A .csv, .jsonl, .parquet or .tar.",
                    },
                    **_AROUND,
                },
            },
            "encoding": {"recipe": {"contentType": "application/json"}},
        },
    },
}
