import sys,time; sys.path.insert(0,'/work/main/tests/unit'); sys.path.insert(0,'/work/main/tests')
from ansible.module_utils.llmfleet.memory.plan import *
from ansible.module_utils.llmfleet.memory.config_shape import from_config
c={"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8192,"num_hidden_layers":80,"num_attention_heads":64,"num_key_value_heads":8,"vocab_size":128256,"intermediate_size":28672,"max_position_embeddings":131072}
s=from_config(c,140<<30)
import inspect
G=1<<30
for par in (1,32,256,1024):
    t=time.time()
    try:
        v=judge(s,Ask("llama_server",context_length=32768,parallel=par),Room((DeviceRoom("GPU0",24*G),DeviceRoom("GPU1",24*G)),64*G)); print(par,round(time.time()-t,2),v.fits,v.change)
    except Exception as e: print(repr(e))
