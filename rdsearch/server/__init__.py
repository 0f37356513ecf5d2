"""The homolog retrieval API and its page: models and indexes stay resident behind HTTP.

FastAPI and uvicorn (extra ``server``) are loaded here and nowhere else.
"""
