"""The Python packages of the Open WebUI image: one set of versions that was built and tried together.

What `pip install open-webui` resolves to, but for what runs models inside the web server (torch, transformers,
onnxruntime, whisper, OCR: 5 GB). The services do that here. kubernetes comes only with chromadb's own server.
"""

from __future__ import annotations

import typing as t

VERSION = "0.12.4"

_TEXT = """
aiocache==0.12.3 aiodns==3.6.1 aiofiles==25.1.0 aiohappyeyeballs==2.7.1 aiohttp==3.14.5 aiosignal==1.4.0
aiosqlite==0.22.1 alembic==1.18.4 annotated-doc==0.0.7 annotated-types==0.8.0 anthropic==0.86.0 anyio==4.16.0
argon2-cffi-bindings==26.2.0 argon2-cffi==25.1.0 asgiref==3.11.1 async-timeout==5.0.1 attrs==26.1.0 authlib==1.7.2
azure-ai-documentintelligence==1.0.2 azure-core==1.41.0 azure-identity==1.25.3 azure-storage-blob==12.29.0
bcrypt==5.0.0 beautifulsoup4==4.14.3 bidict==0.24.1 black==26.5.1 boto3==1.42.62 botocore==1.42.97 brotli==1.2.1
brotlicffi==1.2.1.0 build==1.6.1 certifi==2026.10.18 cffi==2.1.1 chardet==7.4.3 charset-normalizer==3.5.2
chromadb==1.5.9 click==8.5.1 cloudpickle==3.1.2 colorlog==6.12.0 cryptography==48.0.1 ddgs==9.14.4 defusedxml==0.7.1
distro==1.9.0 docstring-parser==0.18.0 docx2txt==0.9 einops==0.8.2 et-xmlfile==2.0.0 events==0.5 fake-useragent==2.2.0
fastapi==0.136.3 filelock==4.2.11 frozenlist==1.8.0 fsspec==2026.9.0 ftfy==6.3.1 google-api-core==2.44.0
google-auth==2.62.2 google-cloud-core==2.8.0 google-cloud-storage==3.9.0 google-crc32c==1.9.0 google-re2==1.1.20251105
google-resumable-media==2.11.0 googleapis-common-protos==1.75.0 greenlet==3.5.6 grpcio==1.85.1 h11==0.16.0 h2==4.4.1
hiredis==3.4.2 hpack==4.2.0 httpcore2==2.16.0 httpcore==1.0.9 httptools==0.9.0 httpx2==2.16.0 httpx==0.28.1
huggingface-hub==1.33.0 hyperframe==6.1.0 idna==3.20 importlib-resources==7.1.0 isodate==0.7.2 itsdangerous==2.2.0
jinja2==3.1.6 jiter==0.19.0 jmespath==1.1.0 joserfc==1.7.4 jsonpatch==1.47 jsonpointer==3.12
jsonschema-specifications==2025.9.1 jsonschema==4.26.0 langchain-classic==1.0.7 langchain-core==1.4.8
langchain-protocol==0.0.20 langchain-text-splitters==1.1.2 langsmith==0.15.0 ldap3==2.9.1 loguru==0.7.3 lxml==6.1.1
mako==1.4.3 markdown-it-py==4.3.0 markdown==3.10.2 markupsafe==3.0.4 mcp-types==2.3.0 mcp==2.3.0 mdurl==0.1.2
mmh3==5.3.1 msal-extensions==1.3.1 msal==1.39.0 msoffcrypto-tool==6.0.0 multidict==7.2.1 mypy-extensions==1.2.0
narwhals==2.29.0 numpy==2.4.6 olefile==0.47 openai==2.29.0 openpyxl==3.1.5 opensearch-protobufs==1.2.0
opensearch-py==3.2.0 opentelemetry-api==1.45.2 opentelemetry-exporter-otlp-common==0.66b2
opentelemetry-exporter-otlp-proto-common==1.45.2 opentelemetry-exporter-otlp-proto-grpc==1.45.2
opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2 opentelemetry-semantic-conventions==0.66b2 orjson==3.11.9
overrides==7.7.0 packaging==26.3 pandas==3.0.3 pathspec==1.1.1 pillow==13.0.0 platformdirs==4.14.7 primp==2.0.1
propcache==0.5.4 proto-plus==1.29.0 protobuf==7.36.2 psutil==7.2.2 psycopg-binary==3.3.4 psycopg==3.3.4
pyasn1-modules==0.4.2 pyasn1==0.6.5 pybase64==1.5.1 pycares==4.11.0 pycparser==3.12 pycrdt==0.14.8
pydantic-core==2.46.4 pydantic-settings==2.16.3 pydantic==2.13.4 pydub==0.25.1 pygments==2.21.0 pyjwt==2.13.0
pymysql==1.2.0 pyotp==2.9.0 pypdf==6.21.2 pypika==0.51.1 pyproject-hooks==1.3.3 python-dateutil==2.9.0.post0
python-docx==1.2.0 python-dotenv==1.2.4 python-engineio==4.15.1 python-mimeparse==2.0.0 python-multipart==0.0.32
python-pptx==1.0.2 python-socketio==5.16.2 pytokens==0.4.1 pytz==2026.2 pyxlsb==1.0.10 pyyaml==6.0.3 qrcode==8.2
rank-bm25==0.2.2 redis==8.0.1 referencing==0.37.0 regex==2026.5.9 requests-toolbelt==1.0.0 requests==2.34.2
rich==13.9.4 rpds-py==2026.9.1 s3transfer==0.16.1 sentencepiece==0.2.1 setuptools==84.2.1 shellingham==1.5.4
simple-websocket==1.1.0 six==1.17.0 sniffio==1.3.1 socksio==1.0.0 soupsieve==3.0.1 sqlalchemy==2.0.50
sse-starlette==3.7.0 starlette-compress==1.7.1 starlette==1.10.0 starsessions==2.2.1 tenacity==9.2.1 tiktoken==0.13.0
tokenizers==0.22.2 tqdm==4.70.1 truststore==0.10.5 typer==0.29.2 typing-extensions==4.16.0 typing-inspection==0.4.5
urllib3==2.8.0 uuid-utils==0.19.0 uvicorn==0.54.0 uvloop==0.23.0 validators==0.35.0 watchfiles==1.3.0 wcwidth==0.9.4
websockets==17.4 wsproto==1.3.2 xlrd==2.0.2 xlsxwriter==3.3.1 xxhash==4.1.0 yarl==1.25.1 youtube-transcript-api==1.2.4
zstandard==0.25.0
"""

PINS: t.Mapping[str, str] = {
    **dict(word.split("==") for word in _TEXT.split()),
    "open-webui": VERSION,
}
"""Package -> version."""


def requirements() -> str:
    """Return the pins as pip reads them."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(PINS.items()))
