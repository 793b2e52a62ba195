"""FastAPI: one coroutine that returns JSON."""

import fastapi

app = fastapi.FastAPI()


@app.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}
