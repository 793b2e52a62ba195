"""FastAPI: one coroutine that returns JSON, for one path or for every one."""

import fastapi

app = fastapi.FastAPI()
every_path = fastapi.FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}


@every_path.api_route("/{name:path}", methods=["GET", "POST"])
async def hello_everywhere(name: str, request: fastapi.Request) -> dict[str, str]:
    """Take the content, where there is some, and answer."""
    if request.method == "POST":
        await request.body()
    return {"message": "Hello, World!"}
